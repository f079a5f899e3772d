package broker

import (
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

const (
	// ackWait collects acknowledgements: the broker handles a hundred in one
	// frame as easily as one.
	ackWait = 5 * time.Millisecond
	// acksAtOnce is how many are sent without waiting any longer.
	acksAtOnce = 256
)

// acks collects the acknowledgements of a channel. If the channel ends, the
// collected ones are lost, and those messages are redelivered, as they would be
// if the channel had ended before they were acknowledged.
type acks struct {
	ch   *amqp.Channel
	wire *wire
	fail func() // ends the connection

	mu sync.Mutex
	// settled are the tags above through that were acknowledged or returned; all
	// up to through were.
	settled map[uint64]struct{}
	through uint64
	waiting []uint64 // acknowledged, but not sent to the broker yet
	timer   bool
}

func newAcks(s *session, ch *amqp.Channel) *acks {
	return &acks{ch: ch, wire: s.wire, fail: s.kill, settled: map[uint64]struct{}{}}
}

// ack acknowledges a message, soon.
func (a *acks) ack(tag uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.waiting = append(a.waiting, tag)
	a.settleLocked(tag)
	switch {
	case len(a.waiting) >= acksAtOnce:
		a.flushLocked()
	case !a.timer:
		a.timer = true
		time.AfterFunc(ackWait, func() {
			a.mu.Lock()
			defer a.mu.Unlock()
			a.timer = false
			a.flushLocked()
		})
	}
}

// giveBack returns a message to its queue.
func (a *acks) giveBack(tag uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	// Nack before it counts as settled, or an acknowledgement of all up to a
	// later tag would include it. An error means that the channel is gone, and
	// the message will be redelivered.
	_ = a.ch.Nack(tag, false, true)
	a.settleLocked(tag)
}

func (a *acks) flush() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.flushLocked()
}

func (a *acks) settleLocked(tag uint64) {
	a.settled[tag] = struct{}{}
	for {
		if _, ok := a.settled[a.through+1]; !ok {
			return
		}
		a.through++
		delete(a.settled, a.through)
	}
}

func (a *acks) flushLocked() {
	if len(a.waiting) == 0 {
		return
	}
	a.wire.cork()
	// The broker must know the tag that acknowledges all before it, so it is a
	// waiting one and not just any settled one.
	var last uint64
	for _, tag := range a.waiting {
		if tag <= a.through {
			last = max(last, tag)
		}
	}
	if last > 0 {
		_ = a.ch.Ack(last, true)
	}
	for _, tag := range a.waiting {
		if tag > a.through {
			_ = a.ch.Ack(tag, false)
		}
	}
	a.waiting = a.waiting[:0]
	if err := a.wire.uncork(); err != nil {
		a.fail() // the library has not seen this error, and half a frame may have been sent
	}
}
