package broker

import (
	"context"
	"errors"
	"fmt"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"golang.org/x/sync/errgroup"
)

// RabbitMQ 4 drops a message from a quorum queue after 20 returns by default, and 3.10 accepts no
// negative number for "never".
const deliveryLimit = int64(1_000_000_000)

// parallelDeclarations is how many channels, and so concurrent calls, Topology uses at most.
const parallelDeclarations = 8

// Topology declares exchanges, queues and bindings, and removes them. Its operations are idempotent
// and safe for concurrent use. Errors distinguish ErrUnavailable (wait), ErrForeign (something else
// has the name) and ErrNotFound.
type Topology struct {
	cfg      Config
	names    Names
	link     *link
	channels chan *topologyChannel // idle ones, nil if not open yet
}

type topologyChannel struct {
	session *session
	ch      *amqp.Channel
	closing chan *amqp.Error
}

// NewTopology starts a topology's connection. It does not need the broker to be up.
func NewTopology(cfg Config) (*Topology, error) {
	cfg, err := cfg.filled()
	if err != nil {
		return nil, err
	}
	t := &Topology{
		cfg: cfg, names: cfg.Names(), link: newLink(cfg, "topology"),
		channels: make(chan *topologyChannel, parallelDeclarations),
	}
	for range parallelDeclarations {
		t.channels <- nil
	}
	return t, nil
}

// Ready reports why there is no connection: an error with ErrUnavailable.
func (t *Topology) Ready() error { return t.link.ready() }

// Since returns when the present connection was made, or zero while there is none.
func (t *Topology) Since() time.Time { return t.link.since() }

// Close ends the connection.
func (t *Topology) Close() error {
	t.link.close()
	return nil
}

// DeclareShared declares the topology that all subscriptions share: the accounts' exchanges, the
// exchange deliver, and the retry queues with their exchanges.
func (t *Topology) DeclareShared(ctx context.Context, accounts []string) error {
	for _, account := range append([]string{""}, accounts...) {
		if err := t.declareExchange(ctx, t.names.Events(account), amqp.ExchangeTopic); err != nil {
			return err
		}
	}
	if err := t.declareExchange(ctx, t.names.Deliver(), amqp.ExchangeDirect); err != nil {
		return err
	}
	for _, rung := range t.cfg.RetryRungs {
		name := t.names.Retry(rung)
		// A fanout exchange, so that the message keeps its routing key, which routes it back.
		if err := t.declareExchange(ctx, name, amqp.ExchangeFanout); err != nil {
			return err
		}
		if err := t.declareQueue(ctx, name, amqp.Table{
			amqp.QueueTypeArg:        amqp.QueueTypeClassic,
			amqp.QueueMessageTTLArg:  rung.Milliseconds(),
			"x-dead-letter-exchange": t.names.Deliver(),
		}); err != nil {
			return err
		}
		if err := t.bind(ctx, name, name, ""); err != nil {
			return err
		}
	}
	return nil
}

// DeclareSubscription declares the queue of a subscription's deliveries and binds it to the
// exchange deliver, and to its account's events with each pattern. It takes two round trips if the
// exchanges exist.
func (t *Topology) DeclareSubscription(ctx context.Context, sub, account string, patterns []string) error {
	err := t.declareBound(ctx, sub, account, patterns)
	if !errors.Is(err, ErrNotFound) {
		return err
	}
	if err := t.declareExchange(ctx, t.names.Events(account), amqp.ExchangeTopic); err != nil {
		return err
	}
	if err := t.declareExchange(ctx, t.names.Deliver(), amqp.ExchangeDirect); err != nil {
		return err
	}
	return t.declareBound(ctx, sub, account, patterns)
}

// DeclareDead declares the queue of a subscription's dead letters.
func (t *Topology) DeclareDead(ctx context.Context, sub string) error {
	return t.declareQueue(ctx, t.names.DeadQueue(sub), t.queueArgs())
}

// Declaration holds the arguments of one DeclareSubscription.
type Declaration struct {
	Subscription, Account string
	Patterns              []string
}

// DeclareSubscriptions does the same as DeclareSubscription for many, with a single answer from the
// broker. If all of them exist that costs the broker a third, and does not wake the queues. It
// returns one error for each.
func (t *Topology) DeclareSubscriptions(ctx context.Context, subs []Declaration) []error {
	errs := make([]error, len(subs))
	if len(subs) == 0 {
		return errs
	}
	err := t.do(ctx, func(ch *amqp.Channel) error { return t.declareSilently(ch, subs) })
	if err == nil {
		return errs
	}
	// At least one declaration failed, and RabbitMQ does not say which.
	faulty := errors.Is(err, ErrNotFound) || errors.Is(err, ErrForeign)
	var g errgroup.Group
	g.SetLimit(parallelDeclarations)
	for i, sub := range subs {
		errs[i] = err
		if !faulty {
			continue
		}
		g.Go(func() error {
			errs[i] = t.DeclareSubscription(ctx, sub.Subscription, sub.Account, sub.Patterns)
			return nil
		})
	}
	_ = g.Wait() // the errors are in errs
	return errs
}

func (t *Topology) declareSilently(ch *amqp.Channel, subs []Declaration) error {
	const noWait = true
	for _, sub := range subs {
		queue := t.names.DeliverQueue(sub.Subscription)
		if _, err := ch.QueueDeclare(queue, true, false, false, noWait, t.queueArgs()); err != nil {
			return err
		}
		if err := ch.QueueBind(queue, sub.Subscription, t.names.Deliver(), noWait, nil); err != nil {
			return err
		}
		for _, pattern := range sub.Patterns {
			if err := ch.QueueBind(queue, pattern, t.names.Events(sub.Account), noWait, nil); err != nil {
				return err
			}
		}
	}
	// The requests of a channel are served in order, so this answer is for all of them.
	return ch.ExchangeDeclarePassive(t.names.Deliver(), amqp.ExchangeDirect, true, false, false, false, nil)
}

func (t *Topology) declareBound(ctx context.Context, sub, account string, patterns []string) error {
	if err := t.declareQueue(ctx, t.names.DeliverQueue(sub), t.queueArgs()); err != nil {
		return err
	}
	bindings, binding := errgroup.WithContext(ctx)
	bindings.Go(func() error { return t.bind(binding, t.names.DeliverQueue(sub), t.names.Deliver(), sub) })
	for _, pattern := range patterns {
		bindings.Go(func() error { return t.bind(binding, t.names.DeliverQueue(sub), t.names.Events(account), pattern) })
	}
	return bindings.Wait()
}

// Remembers reports whether the broker still has the message that Memorize put into the queue
// memory. If so, no message of a classic queue on the same node was lost since. The queue is
// declared if it is missing.
func (t *Topology) Remembers(ctx context.Context) (bool, error) {
	messages, _, exists, err := t.Depth(ctx, t.names.Memory())
	if err != nil || exists {
		return messages > 0, err
	}
	args := t.queueArgs()
	args["x-max-length"] = int64(1)
	return false, t.declareQueue(ctx, t.names.Memory(), args)
}

// Memorize puts a message into the queue memory that is lost together with the other messages that
// this configuration publishes.
func (p *Publisher) Memorize(ctx context.Context) error {
	_, err := p.PublishAll(ctx, []Publishing{{Key: p.cfg.Names().Memory(), Mandatory: true, ID: "memory"}})
	return err
}

// Bind adds patterns of event types to a subscription's queue. It returns ErrNotFound if the queue
// or the account's exchange is missing.
func (t *Topology) Bind(ctx context.Context, sub, account string, patterns []string) error {
	for _, pattern := range patterns {
		if err := t.bind(ctx, t.names.DeliverQueue(sub), t.names.Events(account), pattern); err != nil {
			return err
		}
	}
	return nil
}

// Unbind removes patterns. It ignores missing ones.
func (t *Topology) Unbind(ctx context.Context, sub, account string, patterns []string) error {
	queue, exchange := t.names.DeliverQueue(sub), t.names.Events(account)
	for _, pattern := range patterns {
		err := t.do(ctx, func(ch *amqp.Channel) error { return ch.QueueUnbind(queue, pattern, exchange, nil) })
		if err != nil && !errors.Is(err, ErrNotFound) {
			return fmt.Errorf("unbind queue %s from %q: %w", queue, pattern, err)
		}
	}
	return nil
}

// DeleteSubscription deletes the queues of a subscription with their messages.
func (t *Topology) DeleteSubscription(ctx context.Context, sub string) error {
	for _, queue := range []string{t.names.DeliverQueue(sub), t.names.DeadQueue(sub)} {
		if err := t.DeleteQueue(ctx, queue); err != nil {
			return err
		}
	}
	return nil
}

// DeleteQueue deletes a queue with its messages. It ignores a missing queue.
func (t *Topology) DeleteQueue(ctx context.Context, queue string) error {
	err := t.do(ctx, func(ch *amqp.Channel) error {
		_, err := ch.QueueDelete(queue, false, false, false)
		return err
	})
	if err != nil && !errors.Is(err, ErrNotFound) {
		return fmt.Errorf("delete queue %s: %w", queue, err)
	}
	return nil
}

// Purge empties a queue, except for the messages that consumers hold. It ignores a missing queue.
func (t *Topology) Purge(ctx context.Context, queue string) error {
	err := t.do(ctx, func(ch *amqp.Channel) error {
		_, err := ch.QueuePurge(queue, false)
		return err
	})
	if err != nil && !errors.Is(err, ErrNotFound) {
		return fmt.Errorf("purge queue %s: %w", queue, err)
	}
	return nil
}

// Depth returns how many messages wait in a queue (not counting those in flight), and how many
// consumers it has.
func (t *Topology) Depth(ctx context.Context, queue string) (messages, consumers int, exists bool, err error) {
	err = t.do(ctx, func(ch *amqp.Channel) error {
		q, err := ch.QueueDeclarePassive(queue, true, false, false, false, nil)
		messages, consumers = q.Messages, q.Consumers
		return err
	})
	if errors.Is(err, ErrNotFound) {
		return 0, 0, false, nil
	}
	if err != nil {
		return 0, 0, false, fmt.Errorf("inspect queue %s: %w", queue, err)
	}
	return messages, consumers, true, nil
}

// declareListener declares the queue that Subscriber.Subscribe consumes.
func (t *Topology) declareListener(ctx context.Context, group, topic string) error {
	if err := t.declareExchange(ctx, t.names.Events(""), amqp.ExchangeTopic); err != nil {
		return err
	}
	queue := t.names.listenQueue(group, topic)
	if err := t.declareQueue(ctx, queue, t.queueArgs()); err != nil {
		return err
	}
	return t.bind(ctx, queue, t.names.Events(""), topic)
}

func (t *Topology) queueArgs() amqp.Table {
	if t.cfg.QueueType == Quorum {
		return amqp.Table{amqp.QueueTypeArg: amqp.QueueTypeQuorum, "x-delivery-limit": deliveryLimit}
	}
	// Explicit, since a virtual host may have another default.
	return amqp.Table{amqp.QueueTypeArg: amqp.QueueTypeClassic}
}

func (t *Topology) declareExchange(ctx context.Context, name, kind string) error {
	err := t.do(ctx, func(ch *amqp.Channel) error {
		return ch.ExchangeDeclare(name, kind, true, false, false, false, nil)
	})
	if err != nil {
		return fmt.Errorf("declare exchange %s: %w", name, err)
	}
	return nil
}

func (t *Topology) declareQueue(ctx context.Context, name string, args amqp.Table) error {
	err := t.do(ctx, func(ch *amqp.Channel) error {
		_, err := ch.QueueDeclare(name, true, false, false, false, args)
		return err
	})
	if err != nil {
		return fmt.Errorf("declare queue %s: %w", name, err)
	}
	return nil
}

func (t *Topology) bind(ctx context.Context, queue, exchange, key string) error {
	err := t.do(ctx, func(ch *amqp.Channel) error { return ch.QueueBind(queue, key, exchange, false, nil) })
	if err != nil {
		return fmt.Errorf("bind queue %s to %q: %w", queue, key, err)
	}
	return nil
}

// do makes one request, and repeats it if the connection was lost meanwhile: all are idempotent.
func (t *Topology) do(ctx context.Context, request func(*amqp.Channel) error) error {
	ctx, cancel := context.WithTimeout(ctx, t.cfg.PublishTimeout)
	defer cancel()
	for {
		s, err := t.link.session(ctx)
		if err != nil {
			return err
		}
		err = translate(t.try(ctx, s, request))
		if !errors.Is(err, ErrUnavailable) || ctx.Err() != nil {
			return err
		}
		// The end of the connection may be noticed slightly later than that of the request.
		moment := time.NewTimer(time.Second)
		select {
		case <-s.gone:
			moment.Stop()
		case <-ctx.Done():
			moment.Stop()
			return err
		case <-moment.C:
			return err
		}
	}
}

// try makes one request on an idle channel. The library's requests have no deadline, so each runs
// concurrently with the caller; one that hangs keeps its channel until the connection ends.
func (t *Topology) try(ctx context.Context, s *session, request func(*amqp.Channel) error) error {
	start := time.Now()
	var c *topologyChannel
	select {
	case c = <-t.channels:
	case <-ctx.Done():
		return unavailable(ctx, errors.New("waited for a free channel"))
	}
	answer := make(chan error, 1)
	go func() {
		err := func() error {
			if c == nil || c.session != s || c.ch.IsClosed() {
				ch, err := s.conn.Channel()
				if err != nil {
					return fmt.Errorf("open channel: %w", err)
				}
				c = &topologyChannel{session: s, ch: ch, closing: ch.NotifyClose(make(chan *amqp.Error, 1))}
			}
			err := request(c.ch)
			if err != nil && c.ch.IsClosed() {
				// After a failed request without an answer, the next one fails without the reason.
				if why := <-c.closing; why != nil {
					return why
				}
			}
			return err
		}()
		t.channels <- c
		answer <- err
	}()
	select {
	case err := <-answer:
		return err
	case <-ctx.Done():
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			s.killIfSilent(ctx, start)
		}
		return unavailable(ctx, errors.New("no answer in time"))
	}
}
