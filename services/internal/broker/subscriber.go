package broker

import (
	"context"
	"fmt"
	"sync"

	"github.com/ThreeDotsLabs/watermill/message"
)

// Subscriber implements Watermill's message.Subscriber, with many messages in flight for each
// Subscribe. When its context ends, or at Close, a subscription takes no more messages, returns
// those that were not received, waits for the acknowledgement of the others, and only then closes
// its channel.
type Subscriber struct {
	cfg      Config
	pool     *pool
	topology func() (*Topology, error) // made when first needed: SubscribeQueue does not need it

	closing sync.Once
}

// NewSubscriber makes a subscriber. The broker need not be up, neither here nor for SubscribeQueue,
// which waits for it.
func NewSubscriber(cfg Config) (*Subscriber, error) {
	cfg, err := cfg.filled()
	if err != nil {
		return nil, err
	}
	return &Subscriber{
		cfg: cfg, pool: newPool(cfg), topology: sync.OnceValues(func() (*Topology, error) { return NewTopology(cfg) }),
	}, nil
}

// SubscribeQueue consumes a queue, with up to prefetch messages not yet acknowledged. A missing
// queue is waited for.
func (s *Subscriber) SubscribeQueue(ctx context.Context, queue string, prefetch int) (<-chan *message.Message, error) {
	return s.subscribe(ctx, queue, prefetch, nil)
}

// Subscribe consumes the events of the default account whose type matches a topic, which may be an
// AMQP pattern. It declares a durable queue for each topic and Config.Group.
func (s *Subscriber) Subscribe(ctx context.Context, topic string) (<-chan *message.Message, error) {
	declare := func(ctx context.Context) error { return s.declare(ctx, topic) }
	if err := declare(ctx); err != nil {
		return nil, fmt.Errorf("subscribe to %q: %w", topic, err)
	}
	return s.subscribe(ctx, s.cfg.Names().listenQueue(s.cfg.Group, topic), s.cfg.Prefetch, declare)
}

// SubscribeInitialize declares the same queue as Subscribe, so that no event published from then on
// is missed.
func (s *Subscriber) SubscribeInitialize(topic string) error {
	if err := s.declare(context.Background(), topic); err != nil {
		return fmt.Errorf("initialize subscription to %q: %w", topic, err)
	}
	return nil
}

func (s *Subscriber) declare(ctx context.Context, topic string) error {
	topology, err := s.topology()
	if err != nil {
		return err
	}
	return topology.declareListener(ctx, s.cfg.Group, topic)
}

func (s *Subscriber) subscribe(
	ctx context.Context, queue string, prefetch int, prepare func(context.Context) error,
) (<-chan *message.Message, error) {
	if prefetch < 1 || prefetch > MaxPrefetch {
		return nil, fmt.Errorf("subscribe to queue %s: prefetch %d is not between 1 and %d", queue, prefetch, MaxPrefetch)
	}
	out := make(chan *message.Message)
	_, err := s.pool.start(ctx, source{queue: queue, prefetch: prefetch, out: out, closeOut: true, prepare: prepare})
	if err != nil {
		return nil, fmt.Errorf("subscribe to queue %s: %w", queue, err)
	}
	return out, nil
}

// Close ends all subscriptions and waits until they are drained.
func (s *Subscriber) Close() error {
	s.closing.Do(func() {
		s.pool.close()
		if topology, err := s.topology(); err == nil {
			_ = topology.Close()
		}
	})
	return nil
}
