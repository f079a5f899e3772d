package delivery

import (
	"sync/atomic"
	"time"
)

// How many messages of a subscription are in flight through the ledger follows
// by Little's law from its load: rate times time. The time is that of a commit
// without queueing; with the measured time, a process that is short of CPU would
// have more and more in flight.
const (
	// ahead is how many messages each subscription has in addition to its requests
	// in flight. It is enough for some 2,000 deliveries a second.
	ahead = 64
	// furthest is the most that one subscription gets beyond that. With it and
	// subscription.MaxMaxInFlight a queue's messages in flight stay below
	// broker.MaxPrefetch.
	furthest = 1024
	// furtherInAll bounds these messages of all subscriptions, so that a hundred
	// busy ones do not hold a hundred full windows. furtherBytes bounds the bytes
	// that one subscription holds.
	furtherInAll = 8192
	furtherBytes = 16 << 20
	// shrinkAfter is after how many polls with less need a window shrinks.
	shrinkAfter = 10
	// lagKept is for how many polls the shortest time is kept.
	lagKept = 25
	// ackTime is added to lag: the time between a commit and the next message.
	ackTime = 10 * time.Millisecond
)

// window is how many messages of a subscription are in flight in addition.
type window struct {
	// finished and bytes are counted by deliveries, until the next poll.
	finished, bytes atomic.Int64

	further  int
	lowPolls int // polls in which it needed less
}

// next returns how many messages a window should have. finished messages were
// completed in the elapsed time, the ledger takes lag, and left is how many more
// the other windows allow.
func (w *window) next(finished, bytes int64, elapsed, lag time.Duration, left int) int {
	if finished == 0 {
		return w.shrink(0)
	}
	// Twice: the former window bounds how many were finished.
	need := int(2 * float64(finished) * lag.Seconds() / elapsed.Seconds())
	most := min(furthest, w.further+left, int(furtherBytes/max(bytes/finished, 1)))
	further := 0
	for further+ahead < need {
		further += max(further+ahead, ahead) // doubling the whole
	}
	further = min(further, most)
	if further < w.further {
		return w.shrink(further)
	}
	w.lowPolls = 0
	return further
}

func (w *window) shrink(to int) int {
	if w.further == 0 {
		return 0
	}
	if w.lowPolls++; w.lowPolls < shrinkAfter {
		return w.further
	}
	w.lowPolls = 0
	return to
}

// shortest keeps the shortest of the recently observed times.
type shortest struct {
	observed atomic.Int64 // since the last poll; 0 is none
	recent   [lagKept]time.Duration
	next     int
}

func (s *shortest) observe(d time.Duration) {
	for {
		old := s.observed.Load()
		if old != 0 && old <= int64(d) || s.observed.CompareAndSwap(old, int64(d)) {
			return
		}
	}
}

// look returns the shortest time of the last polls, 0 for none.
func (s *shortest) look() (least time.Duration) {
	s.recent[s.next] = time.Duration(s.observed.Swap(0))
	s.next = (s.next + 1) % lagKept
	for _, d := range s.recent {
		if d > 0 && (least == 0 || d < least) {
			least = d
		}
	}
	return least
}

// widen adjusts the windows to the subscriptions' load since the last poll.
func (r *roster) widen() {
	now := time.Now()
	elapsed := now.Sub(r.widened)
	r.widened = now
	lag := r.service.lag.look() + ackTime
	for _, c := range r.active {
		finished, bytes := c.window.finished.Swap(0), c.window.bytes.Swap(0)
		if finished == 0 && c.window.further == 0 {
			continue
		}
		further := c.window.next(finished, bytes, elapsed, lag, furtherInAll-r.further)
		if further != c.window.further {
			r.further += further - c.window.further
			c.window.further = further
			r.service.consumers.Widen(r.service.names.DeliverQueue(string(c.id)), further)
		}
	}
	r.service.metrics.further.Set(float64(r.further))
}
