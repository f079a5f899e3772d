package bench

import (
	"fmt"
	"sync"
	"time"
)

// slices is into how many equal parts the deliveries of a subscriber are
// divided, to see whether the rate stays.
const slices = 10

// Tally is what the receiver knows of a subscriber. Its numbers are those of
// the events.
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
	if bit := uint64(1) << (number % 64); c.seen[number/64]&bit != 0 {
		c.tally.Duplicated++
		return
	} else {
		c.seen[number/64] |= bit
	}
	if c.tally.Arrived == 0 {
		c.tally.First = now
	}
	c.tally.Arrived++
	c.tally.Last = now
	c.tally.Latency.Record(now.Sub(start))
	if len(c.tally.Marks) < slices && c.tally.Arrived >= (len(c.tally.Marks)+1)*c.expected/slices {
		c.tally.Marks = append(c.tally.Marks, now)
	}
}

// Sum is what all subscribers got together. Marks are those of one of them.
func Sum(tallies map[string]*Tally) *Tally {
	sum := &Tally{}
	for _, t := range tallies {
		sum.Arrived += t.Arrived
		sum.Duplicated += t.Duplicated
		sum.Strange += t.Strange
		if sum.First.IsZero() || (!t.First.IsZero() && t.First.Before(sum.First)) {
			sum.First = t.First
		}
		if t.Last.After(sum.Last) {
			sum.Last, sum.Marks = t.Last, t.Marks
		}
		sum.Latency.Merge(&t.Latency)
	}
	return sum
}

// Check says what is wrong with what arrived: expected is how many there
// should be in all.
func (t *Tally) Check(expected int) error {
	if t.Arrived != expected || t.Duplicated > 0 || t.Strange > 0 {
		return fmt.Errorf("%w: %d lost, %d duplicated, %d strange of %d", ErrIncorrect, expected-t.Arrived, t.Duplicated, t.Strange, expected)
	}
	return nil
}
