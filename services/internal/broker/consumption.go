package broker

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	amqp "github.com/rabbitmq/amqp091-go"
)

// A queue that is missing, or cannot be consumed, is retried after a time between these. Looking
// for it costs the broker a channel, and after a loss of its data thousands may be missing at once.
const (
	minQueueBackoff = 500 * time.Millisecond
	maxQueueBackoff = 15 * time.Second
)

// pool spreads consumptions over connections.
type pool struct {
	cfg Config

	mu     sync.Mutex
	lanes  []*lane
	live   map[*consumption]struct{}
	closed bool
	active sync.WaitGroup
}

func newPool(cfg Config) *pool { return &pool{cfg: cfg, live: map[*consumption]struct{}{}} }

// source is a queue to consume and the destination of its messages.
type source struct {
	queue    string
	prefetch int
	out      chan<- *message.Message
	// closeOut: out belongs to this consumption only.
	closeOut bool
	// prepare is called before consuming if the queue is missing; nil to wait until it is declared.
	prepare func(context.Context) error
	// handler is what Consumers run for the queue's messages.
	handler Handler
}

// consumption keeps a consumer of one queue alive until it is stopped, whatever happens to the
// queue, the channel and the connection.
type consumption struct {
	source
	pool *pool
	lane *lane
	log  *slog.Logger

	stop     context.Context //nolint:containedctx // ends when no more messages are wanted
	stopNow  context.CancelFunc
	drain    context.Context //nolint:containedctx // ends when the handlers' time is over
	drainEnd context.CancelFunc
	done     chan struct{}

	inFlight tally

	// further are the consumers in addition to the first, which widen requested.
	further struct {
		sync.Mutex
		wanted int       // messages
		first  *consumer // nil while there is none
		list   []*further
		done   sync.WaitGroup
	}
}

// further is a consumer in addition to the first one of a consumption.
type further struct {
	prefetch int
	quit     chan struct{}
}

// start begins a consumption. When ctx ends it stops in two phases; done is closed after the
// second.
func (p *pool) start(ctx context.Context, src source) (*consumption, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, ErrClosed
	}
	l := p.room() //nolint:contextcheck // a connection outlives the consumption that it is opened for
	c := &consumption{source: src, pool: p, lane: l, log: p.cfg.Logger.With("queue", src.queue), done: make(chan struct{})}
	c.stop, c.stopNow = context.WithCancel(ctx)
	// Messages outlive the request to stop: their handlers may finish.
	c.drain, c.drainEnd = context.WithCancel(context.WithoutCancel(ctx))
	c.lane.assigned++
	p.live[c] = struct{}{}
	p.active.Go(func() { //nolint:contextcheck // it has its contexts in its fields
		defer p.end(c)
		c.run()
	})
	return c, nil
}

func (p *pool) end(c *consumption) {
	c.stopNow()
	c.drainEnd()
	p.mu.Lock()
	c.lane.assigned--
	delete(p.live, c)
	p.mu.Unlock()
	if c.closeOut {
		close(c.out)
	}
	close(c.done)
}

// room chooses a connection with room, or opens one.
func (p *pool) room() *lane {
	for _, l := range p.lanes {
		if l.assigned < consumersPerLane {
			return l
		}
	}
	l := newLane(p.cfg, len(p.lanes)+1)
	p.lanes = append(p.lanes, l)
	return l
}

// close stops all consumptions in two phases, then ends the connections.
func (p *pool) close() {
	p.mu.Lock()
	p.closed = true
	lanes := p.lanes
	for c := range p.live {
		c.stopNow()
	}
	p.mu.Unlock()
	p.active.Wait()
	var closing sync.WaitGroup
	for _, l := range lanes {
		closing.Go(l.close)
	}
	closing.Wait()
}

func (c *consumption) run() {
	wait := backoff{first: minQueueBackoff, limit: maxQueueBackoff}
	var missing bool
	for c.stop.Err() == nil {
		k, err := c.lane.consume(c.stop, c.queue, c.prefetch)
		switch {
		case err == nil:
			if missing {
				c.log.InfoContext(c.stop, "queue is back")
			}
			missing = false
			wait.reset()
			c.widenFrom(k)
			c.serve(k)
			c.widenFrom(nil)
			continue
		case c.stop.Err() != nil:
		case errors.Is(err, ErrNotFound) && c.prepare != nil:
			if err = c.prepare(c.stop); err == nil {
				c.log.WarnContext(c.stop, "queue was missing and has been declared again")
				continue
			}
			c.log.WarnContext(c.stop, "queue cannot be declared", "error", err)
		case errors.Is(err, ErrNotFound):
			if !missing {
				c.log.InfoContext(c.stop, "queue does not exist yet: waiting for it")
			}
			missing = true
		default:
			c.log.WarnContext(c.stop, "queue cannot be consumed", "error", err)
		}
		wait.pause(c.stop)
	}
	c.finish()
}

// serve passes messages on until the consumer ends, or until stop. It then cancels the consumer and
// returns the messages that were not passed on yet.
func (c *consumption) serve(k *consumer) {
	defer k.release()
	for {
		select {
		case d, ok := <-k.deliveries:
			if ok {
				c.pass(k, &d)
				continue
			}
			if c.stop.Err() == nil {
				c.log.InfoContext(c.stop, "consumer has ended: starting it again")
				// The messages that handlers still hold will be redelivered. Let them finish first,
				// so that the same message is not processed twice at once.
				c.settle(c.stop)
			}
			return
		case <-c.stop.Done():
			c.cancel(k)
			return
		}
	}
}

// widen allows so many messages in flight in addition to those of the first consumer. Further
// consumers get them, since the prefetch of a consumer cannot be changed.
func (c *consumption) widen(messages int) {
	c.further.Lock()
	defer c.further.Unlock()
	c.further.wanted = messages
	c.adjustLocked()
}

// widenFrom sets the first consumer, nil for none.
func (c *consumption) widenFrom(k *consumer) {
	c.further.Lock()
	defer c.further.Unlock()
	c.further.first = k
	if k == nil {
		for _, f := range c.further.list {
			close(f.quit)
		}
		c.further.list = nil
		return
	}
	c.adjustLocked()
}

// adjustLocked starts a further consumer for the missing messages, or ends the latest ones.
func (c *consumption) adjustLocked() {
	if c.further.first == nil || c.stop.Err() != nil {
		return
	}
	have := 0
	for _, f := range c.further.list {
		have += f.prefetch
	}
	for have > c.further.wanted {
		last := len(c.further.list) - 1
		have -= c.further.list[last].prefetch
		close(c.further.list[last].quit)
		c.further.list = c.further.list[:last]
	}
	if missing := c.further.wanted - have; missing > 0 {
		f := &further{prefetch: missing, quit: make(chan struct{})}
		c.further.list = append(c.further.list, f)
		first := c.further.first
		c.further.done.Go(func() { c.serveFurther(first, f) })
	}
}

// serveFurther runs a further consumer until it ends or quits.
func (c *consumption) serveFurther(first *consumer, f *further) {
	k, err := first.channel.more(c.queue, f.prefetch)
	if err != nil {
		c.log.DebugContext(c.stop, "no further consumer", "error", err)
		return
	}
	defer k.release()
	quit := f.quit
	for {
		select {
		case d, ok := <-k.deliveries:
			if !ok {
				return
			}
			c.pass(k, &d)
		case <-quit:
			quit = nil // the messages that it holds are still passed on
			go func() { _ = k.cancel() }()
		case <-c.stop.Done():
			c.cancel(k)
			return
		}
	}
}

func (c *consumption) cancel(k *consumer) {
	go func() {
		// It hangs only on a dead connection, until that is noticed.
		if err := k.cancel(); err != nil {
			c.log.DebugContext(c.drain, "consumer was not cancelled", "error", err)
		}
	}()
	late := time.NewTimer(c.pool.cfg.DrainTimeout)
	defer late.Stop()
	for {
		select {
		case d, ok := <-k.deliveries:
			if !ok {
				return
			}
			k.channel.acks.giveBack(d.DeliveryTag)
		case <-late.C:
			go func() {
				for d := range k.deliveries {
					k.channel.acks.giveBack(d.DeliveryTag)
				}
			}()
			return
		}
	}
}

// pass hands over one message, or returns it if the consumption stops before it is received.
func (c *consumption) pass(k *consumer, d *amqp.Delivery) {
	ctx, cancel := context.WithCancel(c.drain)
	in, tag := arrived(d), d.DeliveryTag
	in.Gone = k.channel.closed
	msg := message.NewMessageWithContext(
		context.WithValue(ctx, receivedKey{}, &received{delivery: in, from: c}), in.ID, in.Body)
	msg.Metadata = in.Headers
	select {
	case c.out <- msg:
		c.inFlight.add()
		go func() {
			defer c.inFlight.done()
			defer cancel()
			select {
			case <-msg.Acked():
				k.channel.acks.ack(tag)
			case <-msg.Nacked():
				k.channel.acks.giveBack(tag)
			case <-c.drain.Done():
				k.channel.acks.giveBack(tag)
			}
		}()
	case <-c.stop.Done():
		cancel()
		k.channel.acks.giveBack(tag)
	case <-k.channel.closed: // the broker has already requeued it
		cancel()
	}
}

// settle waits for the handlers, until ctx ends or their time is over. It reports whether all have
// finished.
func (c *consumption) settle(ctx context.Context) bool {
	late := time.NewTimer(c.pool.cfg.DrainTimeout)
	defer late.Stop()
	select {
	case <-c.inFlight.none():
		return true
	case <-late.C:
	case <-ctx.Done():
	}
	return false
}

// finish waits for the handlers. For those that take too long, the context ends and the messages
// return to the queue.
func (c *consumption) finish() {
	c.further.done.Wait()
	if c.settle(c.drain) {
		return
	}
	c.log.WarnContext(c.stop, "handlers did not finish in time: their messages return to the queue")
	c.drainEnd()
	<-c.inFlight.none()
}

// tally counts messages in flight. A sync.WaitGroup does not allow waiting while it is incremented
// from zero again.
type tally struct {
	mu   sync.Mutex
	n    int
	zero chan struct{} // closed when n falls to zero
}

func (t *tally) add() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.n == 0 {
		t.zero = make(chan struct{})
	}
	t.n++
}

func (t *tally) done() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.n--; t.n == 0 {
		close(t.zero)
	}
}

// none is closed when there are no messages in flight.
func (t *tally) none() <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.zero == nil {
		t.zero = make(chan struct{})
		close(t.zero)
	}
	return t.zero
}

type receivedKey struct{}

// received travels in a message's context.
type received struct {
	delivery Message
	from     *consumption
}

// MessageOf returns a message of this package's Subscriber as it was on the wire.
func MessageOf(msg *message.Message) (Message, bool) {
	r, ok := msg.Context().Value(receivedKey{}).(*received)
	if !ok {
		return Message{}, false
	}
	return r.delivery, true
}
