package bench

import (
	"fmt"
	"sync"
	"time"
)

// tenths is the number of equal parts of a subscriber's deliveries, to see
// whether the rate stays constant.
const tenths = 10

// Tally has the receiver's counts, of one subscriber or of all. An event that
// two of them got has arrived twice; an event that one of them got twice is
// duplicated.
type Tally struct {
	Arrived    int
	Duplicated int
	// Strange are requests that are not an event of the scenario.
	Strange     int
	First, Last time.Time
	// Marks are the times when each tenth of the expected deliveries had arrived.
	Marks   []time.Time
	Latency Histogram
}

// counter builds a Tally.
type counter struct {
	mu       sync.Mutex
	expected int
	seen     []uint64
	tally    Tally
}

func (c *counter) add(number int, start, now time.Time, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !ok || number < 0 || number >= c.expected {
		c.tally.Strange++
		return
	}
	if c.seen == nil {
		c.seen = make([]uint64, (c.expected+63)/64)
	}
	bit := uint64(1) << (number % 64)
	if c.seen[number/64]&bit != 0 {
		c.tally.Duplicated++
		return
	}
	c.seen[number/64] |= bit
	if c.tally.Arrived == 0 {
		c.tally.First = now
	}
	c.tally.Arrived++
	c.tally.Last = now
	c.tally.Latency.Record(now.Sub(start))
	if len(c.tally.Marks) < tenths && c.tally.Arrived >= (len(c.tally.Marks)+1)*c.expected/tenths {
		c.tally.Marks = append(c.tally.Marks, now)
	}
}

// merge adds another subscriber's tally. The marks are those of the last one.
func (t *Tally) merge(o *Tally) {
	t.Arrived += o.Arrived
	t.Duplicated += o.Duplicated
	t.Strange += o.Strange
	if t.First.IsZero() || (!o.First.IsZero() && o.First.Before(t.First)) {
		t.First = o.First
	}
	if o.Last.After(t.Last) {
		t.Last, t.Marks = o.Last, o.Marks
	}
	t.Latency.Merge(&o.Latency)
}

// Check reports lost and duplicated events: expected is the total number of
// deliveries.
func (t *Tally) Check(expected int) error {
	if t.Arrived != expected || t.Duplicated > 0 || t.Strange > 0 {
		return fmt.Errorf("%w: %d lost, %d duplicated, %d strange of %d", ErrIncorrect, expected-t.Arrived, t.Duplicated, t.Strange, expected)
	}
	return nil
}
