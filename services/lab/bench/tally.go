package bench

import (
	"fmt"
	"sync"
	"time"
)

// tenths is into how many equal parts the deliveries of a subscriber are
// divided, to see whether the rate stays.
const tenths = 10

// Tally is what the receiver counted, of one subscriber or of all. An event that
// came to two of them has arrived twice; to one of them twice, it is duplicated.
type Tally struct {
	Arrived    int
	Duplicated int
	// Strange are requests that are no event of the scenario.
	Strange     int
	First, Last time.Time
	// Marks are when each tenth of what is expected had arrived.
	Marks   []time.Time
	Latency Histogram
}

// counter makes a Tally.
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

// merge adds what another subscriber got. The marks are those of the one that
// was last.
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

// Check says what is wrong with what arrived: expected is how many there
// should be in all.
func (t *Tally) Check(expected int) error {
	if t.Arrived != expected || t.Duplicated > 0 || t.Strange > 0 {
		return fmt.Errorf("%w: %d lost, %d duplicated, %d strange of %d", ErrIncorrect, expected-t.Arrived, t.Duplicated, t.Strange, expected)
	}
	return nil
}
