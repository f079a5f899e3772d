package broker

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"

	amqp "github.com/rabbitmq/amqp091-go"
)

// A connection carries many consumers on few channels. One channel per consumer would reach the
// broker's limit of 2,047 channels, beyond which those of the stock subscriber die silently.
const (
	consumersPerChannel = 64
	channelsPerLane     = 32
	consumersPerLane    = consumersPerChannel * channelsPerLane
)

// lane is a connection for consumers and the channels on it.
type lane struct {
	link     *link
	assigned int // consumptions, guarded by the pool

	opening  chan struct{} // held while channels are chosen and opened; a channel, so that waiting can be cancelled
	channels []*consumeChannel

	probing chan struct{} // held while the probe is used
	probe   *amqp.Channel
	probeOn *session
}

func newLane(cfg Config, number int) *lane {
	return &lane{
		link:    newLink(cfg, "consume "+strconv.Itoa(number)),
		opening: make(chan struct{}, 1),
		probing: make(chan struct{}, 1),
	}
}

// consumeChannel is a channel shared by many consumers.
type consumeChannel struct {
	session *session
	ch      *amqp.Channel
	closed  chan struct{}
	users   atomic.Int32
	tags    atomic.Uint64
	acks    *acks

	// calls is held around each request to the broker that has an answer: the library cannot
	// distinguish the answers of two requests on a channel.
	calls sync.Mutex
}

// consume starts a consumer on a queue, waiting for the connection. It returns ErrNotFound if there
// is no such queue.
func (l *lane) consume(ctx context.Context, queue string, prefetch int) (*consumer, error) {
	s, err := l.link.session(ctx)
	if err != nil {
		return nil, err
	}
	// Consuming from a missing queue closes the channel, and with it every other consumer on it.
	if err := l.find(ctx, s, queue); err != nil {
		return nil, err
	}
	c, err := l.channel(ctx, s)
	if err != nil {
		return nil, err
	}
	return c.consume(queue, prefetch)
}

// more starts a further consumer of a queue on the same channel.
func (c *consumeChannel) more(queue string, prefetch int) (*consumer, error) {
	c.users.Add(1)
	return c.consume(queue, prefetch)
}

// consume starts a consumer for a user that is already counted.
func (c *consumeChannel) consume(queue string, prefetch int) (*consumer, error) {
	tag := strconv.FormatUint(c.tags.Add(1), 10)
	c.calls.Lock()
	defer c.calls.Unlock()
	// Not global: each consumer started from now on has this limit.
	if err := c.ch.Qos(prefetch, 0, false); err != nil {
		c.users.Add(-1)
		return nil, translate(fmt.Errorf("set prefetch: %w", err))
	}
	deliveries, err := c.ch.Consume(queue, tag, false, false, false, false, nil)
	if err != nil {
		c.users.Add(-1)
		return nil, translate(fmt.Errorf("consume: %w", err))
	}
	return &consumer{channel: c, tag: tag, deliveries: deliveries}, nil
}

// find checks that a queue exists, on a channel that the check may close.
func (l *lane) find(ctx context.Context, s *session, queue string) error {
	select {
	case l.probing <- struct{}{}:
		defer func() { <-l.probing }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if l.probe == nil || l.probeOn != s || l.probe.IsClosed() {
		ch, err := s.conn.Channel()
		if err != nil {
			return translate(fmt.Errorf("open channel: %w", err))
		}
		l.probe, l.probeOn = ch, s
	}
	if _, err := l.probe.QueueDeclarePassive(queue, true, false, false, false, nil); err != nil {
		return translate(fmt.Errorf("look for queue: %w", err))
	}
	return nil
}

// channel chooses a channel with room, or opens one.
func (l *lane) channel(ctx context.Context, s *session) (*consumeChannel, error) {
	select {
	case l.opening <- struct{}{}:
		defer func() { <-l.opening }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	live := l.channels[:0]
	var room *consumeChannel
	for _, c := range l.channels {
		if c.session != s || c.ch.IsClosed() {
			continue
		}
		live = append(live, c)
		if room == nil && c.users.Load() < consumersPerChannel {
			room = c
		}
	}
	clear(l.channels[len(live):])
	l.channels = live
	if room == nil {
		ch, err := s.conn.Channel()
		if err != nil {
			return nil, translate(fmt.Errorf("open channel: %w", err))
		}
		room = &consumeChannel{session: s, ch: ch, closed: make(chan struct{}), acks: newAcks(s, ch)}
		go room.watch(ch.NotifyClose(make(chan *amqp.Error, 1)), l)
		l.channels = append(l.channels, room)
	}
	room.users.Add(1)
	return room, nil
}

// close sends the collected acknowledgements and ends the connection.
func (l *lane) close() {
	l.opening <- struct{}{}
	for _, c := range l.channels {
		c.acks.flush()
	}
	<-l.opening
	l.link.close()
}

func (c *consumeChannel) watch(closing <-chan *amqp.Error, l *lane) {
	if e := <-closing; e != nil {
		l.link.log.Warn("channel for consumers was closed", "consumers", c.users.Load(), "error", e)
	}
	close(c.closed)
}

// consumer is a consumer on the broker. It ends when its channel does, or when its queue does.
type consumer struct {
	channel    *consumeChannel
	tag        string
	deliveries <-chan amqp.Delivery
}

// cancel tells the broker to send no more messages. deliveries is closed once those already sent
// have been read.
func (c *consumer) cancel() error {
	c.channel.calls.Lock()
	defer c.channel.calls.Unlock()
	if err := c.channel.ch.Cancel(c.tag, false); err != nil && !errors.Is(err, amqp.ErrClosed) {
		return translate(fmt.Errorf("cancel consumer: %w", err))
	}
	return nil
}

func (c *consumer) release() { c.channel.users.Add(-1) }
