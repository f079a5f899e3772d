package broker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	amqp "github.com/rabbitmq/amqp091-go"
)

// Outcome is the result of publishing a message.
type Outcome int

const (
	// Unknown means that the broker may or may not have the message.
	Unknown Outcome = iota
	// Acked means that the broker has it, and for a mandatory message that a queue has it. No other
	// outcome is success.
	Acked
	// Nacked means that the broker, or AMQP itself, refused the message.
	Nacked
	// Returned means that a mandatory message reached no queue.
	Returned
)

// String names the outcome.
func (o Outcome) String() string {
	switch o {
	case Acked:
		return "acked"
	case Nacked:
		return "nacked"
	case Returned:
		return "returned"
	case Unknown:
		return "unknown"
	}
	return "Outcome(" + strconv.Itoa(int(o)) + ")"
}

const (
	// After connection.blocked, confirms of messages that the broker accepted before the alarm may
	// still arrive.
	blockedGrace = 250 * time.Millisecond
	// A confirm takes this much longer for each queue that a message goes to. RabbitMQ 3.10 took
	// 25 s for 10,000 queues that had been idle.
	perQueue = 10 * time.Millisecond
)

// Publisher publishes with confirms over one connection and one channel, which it reopens as
// needed. All callers share the channel and their confirms are pipelined, so that many small calls
// are as fast as a large one, while the messages of a caller that makes one call after another stay
// in order. It implements Watermill's message.Publisher.
type Publisher struct {
	cfg  Config
	link *link

	writing chan struct{} // held by the writing call; a channel, so that the others can give up waiting
	channel *publishChannel

	mu     sync.RWMutex
	closed bool
	active sync.WaitGroup
}

// NewPublisher starts a publisher. It does not need the broker to be up.
func NewPublisher(cfg Config) (*Publisher, error) {
	cfg, err := cfg.filled()
	if err != nil {
		return nil, err
	}
	return &Publisher{
		cfg: cfg, link: newLink(cfg, "publish"), writing: make(chan struct{}, 1),
	}, nil
}

// PublishAll publishes a batch: all of it is written, then all confirms are awaited. There is one
// outcome for each message; the error is nil only if all are Acked. It ends with ctx, after
// Config.PublishTimeout without a single confirm (longer for a message to many queues), or soon
// after the broker has raised an alarm. It keeps waiting for a broker that is slow but makes
// progress: the same batch would be as slow again. After an error the batch may still be read for a
// while, so it must not be changed.
func (p *Publisher) PublishAll(ctx context.Context, batch []Publishing) ([]Outcome, error) {
	outcomes := make([]Outcome, len(batch))
	if len(batch) == 0 {
		return outcomes, nil
	}
	if !p.enter() {
		return outcomes, fmt.Errorf("publish: %w", ErrClosed)
	}
	defer p.active.Done()
	start := time.Now()
	soon, cancel := context.WithTimeout(ctx, p.cfg.PublishTimeout)
	defer cancel()

	s, err := p.link.session(soon)
	if err != nil {
		return outcomes, fmt.Errorf("publish: %w", err)
	}
	refusing := s.refusing()
	select {
	case <-refusing:
		return outcomes, fmt.Errorf("publish: %w", ErrBlocked)
	default:
	}

	c := &publishCall{batch: batch, persistent: p.cfg.Persistent, flights: make([]flight, len(batch)), written: make(chan struct{})}
	p.active.Go(func() {
		defer close(c.written)
		c.err = p.write(soon, s, c)
	})
	limit := p.cfg.PublishTimeout
	for i := range batch {
		limit = max(limit, p.cfg.PublishTimeout+time.Duration(batch[i].Queues)*perQueue)
	}
	wait := &waiter{
		ctx: ctx, limit: limit, timer: time.NewTimer(limit),
		progress: &c.progress, refusing: refusing, stop: &c.stop,
	}
	defer wait.timer.Stop()
	if err := c.await(wait, outcomes); err != nil {
		switch {
		case wait.late:
			if !s.killIfSilent(ctx, time.Now().Add(-limit)) {
				// The broker is reachable, but this channel's process is busy. The next messages
				// must not wait for it.
				err = fmt.Errorf("%w: %w", ErrNoConfirm, err)
				c.abandon()
			}
		case errors.Is(ctx.Err(), context.DeadlineExceeded):
			s.killIfSilent(ctx, start)
		}
		return outcomes, fmt.Errorf("publish %d messages: %w", len(batch), err)
	}
	return outcomes, nil
}

// Publish publishes messages to the events exchange of the default account, the topic being the
// routing key. It implements Watermill's message.Publisher.
func (p *Publisher) Publish(topic string, messages ...*message.Message) error {
	if len(messages) == 0 {
		return nil
	}
	batch := make([]Publishing, len(messages))
	for i, m := range messages {
		batch[i] = Publishing{
			Exchange: p.cfg.Names().Events(""), Key: topic, ID: m.UUID, Headers: m.Metadata, Body: m.Payload, Persistent: true,
		}
	}
	// A message that a handler passes on has the context of the received one, which ends with the
	// acknowledgement.
	_, err := p.PublishAll(context.WithoutCancel(messages[0].Context()), batch)
	return err
}

// Ready reports why there is no connection to publish on: an error with ErrUnavailable, or
// ErrBlocked if the broker refuses messages.
func (p *Publisher) Ready() error {
	if err := p.link.ready(); err != nil {
		return err
	}
	if p.link.blocked() {
		return ErrBlocked
	}
	return nil
}

// Close waits for calls in flight and closes the connection. Further calls do nothing.
func (p *Publisher) Close() error {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.active.Wait()
	p.link.close()
	return nil
}

func (p *Publisher) enter() bool {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if p.closed {
		return false
	}
	p.active.Add(1)
	return true
}

// publishCall is one PublishAll in flight. Its flights and error belong to the writer until written
// is closed.
type publishCall struct {
	batch      []Publishing
	persistent bool
	stop       atomic.Bool
	progress   atomic.Int64 // when something was last written or confirmed, in Unix nanoseconds
	written    chan struct{}
	channel    *publishChannel
	flights    []flight
	err        error // why writing ended early
}

// flight is one message in flight.
type flight struct {
	confirm  *amqp.DeferredConfirmation // nil if not written
	returned *returnFlag                // nil unless mandatory
	invalid  error
}

// write sends the batch. It runs concurrently with the caller, which may have to return while a
// write still hangs; the wire's deadline ends that.
func (p *Publisher) write(ctx context.Context, s *session, c *publishCall) error {
	select {
	case p.writing <- struct{}{}:
		defer func() { <-p.writing }()
	case <-ctx.Done():
		return unavailable(ctx, errors.New("waited for other messages to be written"))
	}
	if p.channel == nil || p.channel.session != s || p.channel.ch.IsClosed() || p.channel.abandoned.Load() {
		ch, err := openPublishChannel(s)
		if err != nil {
			return translate(fmt.Errorf("open channel: %w", err))
		}
		p.channel = ch
	}
	c.channel = p.channel
	s.wire.cork()
	err := c.writeAll()
	if flushErr := s.wire.uncork(); err == nil && flushErr != nil {
		// The library has not seen this error, and half a frame may have been sent.
		s.kill()
		err = translate(flushErr)
	}
	return err
}

func (c *publishCall) writeAll() error {
	for i := range c.batch {
		if c.stop.Load() {
			return nil
		}
		m, f := &c.batch[i], &c.flights[i]
		if f.invalid = m.validate(); f.invalid != nil {
			continue
		}
		msg := m.amqp(c.persistent)
		if m.Mandatory {
			f.returned = c.channel.expectReturn()
			msg.CorrelationId = f.returned.id
		}
		var err error
		if f.confirm, err = c.channel.ch.PublishWithDeferredConfirm(m.Exchange, m.Key, m.Mandatory, false, msg); err != nil {
			return translate(fmt.Errorf("write: %w", err))
		}
		c.progress.Store(time.Now().UnixNano())
	}
	return nil
}

// abandon gives up the channel, which closes when the broker handles the request.
func (c *publishCall) abandon() {
	select {
	case <-c.written:
	default:
		return // the writer hangs, and the wire's deadline ends the connection
	}
	if ch := c.channel; ch != nil && !ch.abandoned.Swap(true) {
		go func() { _ = ch.ch.Close() }() // it waits for the broker, at most until the connection ends
	}
}

// await fills in the outcomes. Its error is nil only if all are Acked.
func (c *publishCall) await(w *waiter, outcomes []Outcome) error {
	if !w.wait(c.written) {
		return w.err // the flights still belong to the writer
	}
	var lost bool
	var invalid, returned, nacked, unknown error // the first of each kind is enough
	for i := range c.flights {
		f := &c.flights[i]
		switch {
		case f.invalid != nil:
			outcomes[i] = Nacked
			invalid = cmp.Or(invalid, fmt.Errorf("message %d: %w", i, f.invalid))
		case f.confirm == nil || !w.wait(f.confirm.Done()):
			lost = true
		case f.confirm.Acked() && f.returned != nil && f.returned.set.Load():
			outcomes[i] = Returned
			returned = cmp.Or(returned, fmt.Errorf("message %d: %w: %s", i, ErrReturned, c.batch[i].Key))
		case f.confirm.Acked():
			outcomes[i] = Acked
		case c.channel.ch.IsClosed(): // which the library reports as a nack
			lost = true
		default:
			outcomes[i] = Nacked
			nacked = cmp.Or(nacked, fmt.Errorf("message %d: %w: %s", i, ErrNacked, c.batch[i].Key))
		}
		if f.returned != nil {
			c.channel.forgetReturn(f.returned)
		}
	}
	switch {
	case lost && w.err != nil:
		unknown = w.err
	case lost && c.channel != nil && c.channel.ch.IsClosed():
		unknown = c.channel.reason()
	case lost:
		unknown = cmp.Or(c.err, ErrUnavailable)
	}
	return errors.Join(invalid, returned, nacked, unknown)
}

// waiter waits for one event after another, for each as long as the limit. Once the limit was
// exceeded it only polls.
type waiter struct {
	ctx      context.Context //nolint:containedctx // of the single call that it serves
	limit    time.Duration
	timer    *time.Timer
	progress *atomic.Int64
	refusing <-chan struct{}
	stop     *atomic.Bool // tells the writer that there is no time left
	grace    <-chan time.Time
	over     bool
	late     bool  // over for lack of progress
	err      error // why there is no time left
}

func (p *waiter) wait(done <-chan struct{}) bool {
	for !p.over {
		select {
		case <-done:
			p.progress.Store(time.Now().UnixNano())
			return true
		case <-p.refusing:
			p.refusing, p.err = nil, ErrBlocked
			p.grace = time.After(blockedGrace)
			p.stop.Store(true)
		case <-p.grace:
			p.over = true
		case <-p.timer.C:
			if left := p.limit - time.Since(time.Unix(0, p.progress.Load())); left > 0 {
				p.timer.Reset(left)
				continue
			}
			p.late = true
			p.giveUp(fmt.Errorf("%w: no confirm in %v", ErrUnavailable, p.limit))
		case <-p.ctx.Done():
			p.giveUp(unavailable(p.ctx, errors.New("no confirm in time")))
		}
	}
	select {
	case <-done:
		return true
	default:
		return false
	}
}

func (p *waiter) giveUp(why error) {
	p.over = true
	p.stop.Store(true)
	if p.err == nil {
		p.err = why
	}
}

// publishChannel is a channel in confirm mode.
type publishChannel struct {
	session *session
	ch      *amqp.Channel
	closed  chan struct{}
	err     error // set before closed is

	abandoned atomic.Bool // no confirm came in time

	mu      sync.Mutex
	next    uint64
	returns map[string]*returnFlag
}

// returnFlag is set when the mandatory message with its id was returned.
type returnFlag struct {
	id  string
	set atomic.Bool
}

func openPublishChannel(s *session) (*publishChannel, error) {
	ch, err := s.conn.Channel()
	if err != nil {
		return nil, fmt.Errorf("open channel: %w", err)
	}
	c := &publishChannel{session: s, ch: ch, closed: make(chan struct{}), returns: map[string]*returnFlag{}}
	// Both listeners get every return, one after the other, and the library reads nothing more
	// until the second has received it. So a return is recorded before the confirm of the same
	// message, which follows it, can be seen.
	first, second := ch.NotifyReturn(make(chan amqp.Return)), ch.NotifyReturn(make(chan amqp.Return))
	go c.watch(first, second, ch.NotifyClose(make(chan *amqp.Error, 1)))
	if err := ch.Confirm(false); err != nil {
		return nil, fmt.Errorf("switch to confirms: %w", err)
	}
	return c, nil
}

func (c *publishChannel) watch(first, second <-chan amqp.Return, closing <-chan *amqp.Error) {
	defer close(c.closed)
	for r := range first {
		c.mu.Lock()
		if f := c.returns[r.CorrelationId]; f != nil {
			f.set.Store(true)
		}
		c.mu.Unlock()
		<-second
	}
	if e := <-closing; e != nil {
		c.err = e
	}
}

// reason returns why the channel was closed, once it is.
func (c *publishChannel) reason() error {
	<-c.closed
	if c.err == nil {
		return fmt.Errorf("%w: channel closed", ErrUnavailable)
	}
	return translate(c.err)
}

// expectReturn makes an id that identifies a returned message. The message's id would not do: the
// same event may be in flight more than once.
func (c *publishChannel) expectReturn() *returnFlag {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.next++
	f := &returnFlag{id: strconv.FormatUint(c.next, 10)}
	c.returns[f.id] = f
	return f
}

func (c *publishChannel) forgetReturn(f *returnFlag) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.returns, f.id)
}
