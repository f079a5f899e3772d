package broker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
)

// Handler processes one message. Nil acknowledges it; after an error or a panic it returns to its
// queue and is redelivered after Config.RequeuePause. ctx lasts until the handler returns, unless a
// stop has waited for it for Config.DrainTimeout.
type Handler func(ctx context.Context, d Message) error

// Consumers run a handler for each of many queues, which may be added and removed while they run. A
// slow queue delays no other: each has its own prefetch, and each message its own goroutine.
//
// They are one handler of a Watermill Router, fed by all queues. One Router handler per queue was
// tried and dropped: it costs four goroutines a queue, iterates over all handlers whenever one is
// added, closes the Router when the last one is removed, and cannot wait for its messages.
type Consumers struct {
	cfg    Config
	pool   *pool
	router *message.Router
	feed   feed

	mu      sync.Mutex
	entries map[string]*entry
	started bool
	ended   bool
}

type entry struct {
	source
	running *consumption // nil before Run
}

// ended reports whether Remove has completed.
func (e *entry) ended() bool {
	if e.running == nil {
		return false
	}
	select {
	case <-e.running.done:
		return true
	default:
		return false
	}
}

// feed is the channel that the Router subscribes to.
type feed chan *message.Message

// Subscribe implements message.Subscriber.
func (f feed) Subscribe(context.Context, string) (<-chan *message.Message, error) { return f, nil }

// Close implements message.Subscriber. The feed is closed by Consumers.Run, once the last message
// is settled.
func (f feed) Close() error { return nil }

// NewConsumers makes consumers without queues. It does not need the broker to be up.
func NewConsumers(cfg Config) (*Consumers, error) {
	cfg, err := cfg.filled()
	if err != nil {
		return nil, err
	}
	router, err := message.NewRouter(
		message.RouterConfig{CloseTimeout: cfg.DrainTimeout + closeTimeout},
		// The Router logs every handler and message; none of it is a decision.
		watermill.NewSlogLoggerWithLevelMapping(cfg.Logger, map[slog.Level]slog.Level{slog.LevelInfo: slog.LevelDebug}))
	if err != nil {
		return nil, fmt.Errorf("make router: %w", err)
	}
	c := &Consumers{
		cfg: cfg, pool: newPool(cfg), router: router, feed: make(feed), entries: map[string]*entry{},
	}
	router.AddConsumerHandler("deliveries", "deliveries", c.feed, c.handle)
	return c, nil
}

// Run consumes until ctx ends and everything is drained. It can be called once.
func (c *Consumers) Run(ctx context.Context) error {
	routing, stopRouting := context.WithCancel(context.WithoutCancel(ctx))
	defer stopRouting()
	routed := make(chan error, 1)
	if err := c.begin(); err != nil { //nolint:contextcheck // queues are stopped by the pool, and drained before
		return err
	}
	go func() { routed <- c.router.Run(routing) }()

	var early error
	select {
	case <-ctx.Done():
	case early = <-routed: // it does not stop by itself
		early = errors.Join(errors.New("router has stopped"), early)
		go c.refuse()
	}
	c.mu.Lock()
	c.ended = true
	c.mu.Unlock()
	c.pool.close()
	stopRouting() // before the feed ends, or the Router treats the end as an error
	close(c.feed)
	if early != nil {
		return fmt.Errorf("consume: %w", early)
	}
	if err := errors.Join(<-routed, c.router.Close()); err != nil {
		return fmt.Errorf("consume: %w", err)
	}
	return nil
}

// refuse returns messages that arrive after the Router has ended.
func (c *Consumers) refuse() {
	for msg := range c.feed {
		msg.Nack()
	}
}

func (c *Consumers) begin() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.started {
		return errors.New("consume: Run was called before")
	}
	c.started = true
	for _, e := range c.entries {
		if err := c.startLocked(e); err != nil {
			return err
		}
	}
	return nil
}

func (c *Consumers) startLocked(e *entry) error {
	var err error
	// It ends with Remove or with the pool.
	if e.running, err = c.pool.start(context.Background(), e.source); err != nil {
		return fmt.Errorf("consume queue %s: %w", e.queue, err)
	}
	return nil
}

// Add begins to consume a queue, with up to prefetch messages in flight, now or when Run is called.
// A missing queue is waited for.
func (c *Consumers) Add(queue string, prefetch int, h Handler) error {
	if prefetch < 1 || prefetch > MaxPrefetch {
		return fmt.Errorf("consume queue %s: prefetch %d is not between 1 and %d", queue, prefetch, MaxPrefetch)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		return fmt.Errorf("consume queue %s: %w", queue, ErrClosed)
	}
	if e, ok := c.entries[queue]; ok && !e.ended() {
		return fmt.Errorf("consume queue %s: %w", queue, ErrAdded)
	}
	e := &entry{source: source{queue: queue, prefetch: prefetch, out: c.feed, handler: h}}
	if c.started {
		if err := c.startLocked(e); err != nil {
			return err
		}
	}
	c.entries[queue] = e
	return nil
}

// Widen allows up to further messages of a queue in flight in addition to its prefetch, 0 for none.
// It ignores a queue that is not consumed.
func (c *Consumers) Widen(queue string, further int) {
	c.mu.Lock()
	var running *consumption
	if e := c.entries[queue]; e != nil {
		running = e.running
	}
	c.mu.Unlock()
	if running != nil {
		running.widen(further)
	}
}

// Remove stops consuming a queue and waits until its messages are drained, or until ctx ends; the
// stop then continues, and the queue cannot be added again until it is finished. Remove ignores a
// queue that was never added.
func (c *Consumers) Remove(ctx context.Context, queue string) error {
	c.mu.Lock()
	e := c.entries[queue]
	if e == nil {
		c.mu.Unlock()
		return nil
	}
	if e.running == nil {
		delete(c.entries, queue)
		c.mu.Unlock()
		return nil
	}
	e.running.stopNow()
	c.mu.Unlock()
	select {
	case <-e.running.done:
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.entries[queue] == e {
			delete(c.entries, queue)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("remove queue %s: %w", queue, ctx.Err())
	}
}

// Ready reports why queues are not consumed: an error with ErrUnavailable. Without queues it
// returns nil.
func (c *Consumers) Ready() error {
	c.pool.mu.Lock()
	defer c.pool.mu.Unlock()
	for _, l := range c.pool.lanes {
		if err := l.link.ready(); err != nil {
			return err
		}
	}
	return nil
}

// handle is the Router's handler: it finds the queue's handler.
func (c *Consumers) handle(msg *message.Message) error {
	r, ok := msg.Context().Value(receivedKey{}).(*received)
	if !ok {
		return errors.New("message without a delivery")
	}
	err := r.handle(msg.Context())
	if err == nil {
		return nil
	}
	// A message that fails at once would otherwise be redelivered as fast as the broker can.
	t := time.NewTimer(c.cfg.RequeuePause)
	defer t.Stop()
	select {
	case <-t.C:
	case <-r.from.stop.Done():
	}
	return err
}

// handle runs the queue's handler. A panic counts as an error.
func (r *received) handle(ctx context.Context) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("handler panicked: %v\n%s", p, debug.Stack())
		}
	}()
	return r.from.handler(ctx, r.delivery)
}
