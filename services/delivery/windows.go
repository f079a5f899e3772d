package delivery

import (
	"sync/atomic"
	"time"
)

// How many messages of a subscription are on their way through the ledger
// follows from what it does: by Little's law, rate times time. The time is that
// of a commit without a queue before it; by the time as it is, a process that is
// short of processors would have more and more in hand.
const (
	// ahead is what each subscription has, beside its requests in flight. It is
	// enough for some 2,000 deliveries a second.
	ahead = 64
	// furthest is the most that one gets in addition. With it and
	// subscription.MaxMaxInFlight a queue's messages in hand stay below
	// broker.MaxPrefetch.
	furthest = 1024
	// furtherInAll bounds what all get in addition, so that a hundred busy ones
	// do not hold a hundred full windows, and furtherBytes what one holds.
	furtherInAll = 8192
	furtherBytes = 16 << 20
	// calmAfter is how many looks a subscription has to need less before it
	// gets less.
	calmAfter = 10
	// lagKept is for how many looks the shortest time is kept.
	lagKept = 25
	// ackTime is what passes between a commit and the next message, beside it.
	ackTime = 10 * time.Millisecond
)

// window is how many messages of a subscription are in hand in addition.
type window struct {
	// finished and bytes are counted by those who deliver, until the next look.
	finished, bytes atomic.Int64

	further int
	calm    int // looks in which it needed less
}

// next is how many a window should have after a time in which some messages
// were finished, where the ledger takes lag, and left is what others leave it.
func (w *window) next(finished, bytes int64, elapsed, lag time.Duration, left int) int {
	if finished == 0 {
		return w.shrink(0)
	}
	// Twice: what is finished is bounded by the window there was.
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
	w.calm = 0
	return further
}

func (w *window) shrink(to int) int {
	if w.further == 0 {
		return 0
	}
	if w.calm++; w.calm < calmAfter {
		return w.further
	}
	w.calm = 0
	return to
}

// shortest keeps the shortest of the times that were noted lately.
type shortest struct {
	noted  atomic.Int64 // since the last look; 0 is none
	recent [lagKept]time.Duration
	next   int
}

func (s *shortest) note(d time.Duration) {
	for {
		old := s.noted.Load()
		if old != 0 && old <= int64(d) || s.noted.CompareAndSwap(old, int64(d)) {
			return
		}
	}
}

// look is the shortest time of the last looks, 0 for none.
func (s *shortest) look() (least time.Duration) {
	s.recent[s.next] = time.Duration(s.noted.Swap(0))
	s.next = (s.next + 1) % lagKept
	for _, d := range s.recent {
		if d > 0 && (least == 0 || d < least) {
			least = d
		}
	}
	return least
}

// widen fits the windows to what the subscriptions did since the last look.
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
