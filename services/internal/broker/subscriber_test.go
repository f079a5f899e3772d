package broker_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	amqp "github.com/rabbitmq/amqp091-go"

	"posthorn/services/internal/broker"
)

func TestSubscribeHasManyMessagesInFlight(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	q := s.queue(t, "q")
	fill(t, s.publisher(t), q, 20)
	in, err := s.subscriber(t).SubscribeQueue(t.Context(), q, 8)
	if err != nil {
		t.Fatal(err)
	}
	var held []*message.Message
	for range 8 {
		held = append(held, receive(t, in))
	}
	if n := s.depth(t, q); n != 12 {
		t.Errorf("%d messages wait in the queue, want 12: prefetch is 8", n)
	}
	select {
	case <-in:
		t.Error("a ninth message arrived before one was acknowledged")
	default:
	}
	held[3].Ack()
	held = append(held[:3:3], held[4:]...)
	held = append(held, receive(t, in))
	for _, m := range held {
		m.Ack()
	}
	for range 11 {
		receive(t, in).Ack()
	}
}

func TestNackRedeliversMessage(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	q := s.queue(t, "q")
	fill(t, s.publisher(t), q, 1)
	in, err := s.subscriber(t).SubscribeQueue(t.Context(), q, 1)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		m := receive(t, in)
		if d, _ := broker.MessageOf(m); d.Redelivered != (i > 0) {
			t.Errorf("delivery %d has redelivered=%v", i, d.Redelivered)
		}
		m.Nack()
	}
	receive(t, in).Ack()
}

func TestSubscriberSurvivesLostConnection(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	q := s.queue(t, "q")
	direct := s.publisher(t)
	l, through := newProxy(t, s.cfg.URL)
	s.cfg.URL = through
	in, err := s.subscriber(t).SubscribeQueue(t.Context(), q, 4)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		fill(t, direct, q, 10)
		for range 10 {
			receive(t, in).Ack()
		}
		l.Cut()
		mend(t, l)
	}
}

func TestSubscriberNoticesSilentConnection(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	q := s.queue(t, "q")
	direct := s.publisher(t)
	l, through := newProxy(t, s.cfg.URL)
	s.cfg.URL = through
	s.cfg.Heartbeat = time.Second
	s.cfg.DialTimeout = time.Second
	in, err := s.subscriber(t).SubscribeQueue(t.Context(), q, 4)
	if err != nil {
		t.Fatal(err)
	}
	fill(t, direct, q, 1)
	receive(t, in).Ack()
	l.Silence()
	fill(t, direct, q, 1)
	// The broker requeues the message when the dead connection misses its heartbeats.
	eventually(t, "broker notices", func() bool { return s.depth(t, q) > 0 })
	l.Heal()
	receive(t, in).Ack()
}

func TestMessageInFlightOnLostConnectionIsRedeliveredAfterItsHandler(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	q := s.queue(t, "q")
	direct := s.publisher(t)
	l, through := newProxy(t, s.cfg.URL)
	s.cfg.URL = through
	in, err := s.subscriber(t).SubscribeQueue(t.Context(), q, 4)
	if err != nil {
		t.Fatal(err)
	}
	fill(t, direct, q, 1)
	m := receive(t, in)
	l.Cut()
	mend(t, l)
	eventually(t, "message is back in the queue", func() bool { return s.depth(t, q) == 1 })
	if m.Context().Err() != nil {
		t.Error("the handler was interrupted")
	}
	m.Ack() // too late for the broker
	again := receive(t, in)
	if d, _ := broker.MessageOf(again); !d.Redelivered {
		t.Error("not marked as redelivered")
	}
	again.Ack()
}

func TestDeletedQueueYieldsNoPhantomAndIsConsumedAgain(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	q, other := s.queue(t, "q"), s.queue(t, "other")
	p := s.publisher(t)
	sub := s.subscriber(t)
	in, err := sub.SubscribeQueue(t.Context(), q, 4)
	if err != nil {
		t.Fatal(err)
	}
	beside, err := sub.SubscribeQueue(t.Context(), other, 1)
	if err != nil {
		t.Fatal(err)
	}
	fill(t, p, q, 1)
	fill(t, p, other, 1)
	held, inFlight := receive(t, beside), receive(t, in)
	if _, err := s.channel(t).QueueDelete(q, false, false, false); err != nil {
		t.Fatal(err)
	}
	inFlight.Ack() // of a deleted queue; must not disturb the channel
	s.declare(t, q)
	batch := messages(q, 5)
	for i := range batch {
		batch[i].ID = fmt.Sprintf("after-%d", i)
	}
	if _, err := p.PublishAll(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		m := receive(t, in)
		if want := fmt.Sprintf("after-%d", i); m.UUID != want || string(m.Payload) != "{}" {
			t.Errorf("got %q with body %q, want %q", m.UUID, m.Payload, want)
		}
		m.Ack()
	}
	// The neighbour on the same channel still has its message, not a second copy.
	held.Ack()
	fill(t, p, other, 1)
	m := receive(t, beside)
	if d, _ := broker.MessageOf(m); d.Redelivered {
		t.Error("the neighbour's channel was closed")
	}
	m.Ack()
}

func TestMissingQueueLeavesOthersOnItsChannelAlone(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	q := s.queue(t, "q")
	p := s.publisher(t)
	sub := s.subscriber(t)
	in, err := sub.SubscribeQueue(t.Context(), q, 1)
	if err != nil {
		t.Fatal(err)
	}
	fill(t, p, q, 1)
	held := receive(t, in)
	missing := s.Namespace + "missing"
	s.sweep(missing)
	late, err := sub.SubscribeQueue(t.Context(), missing, 1)
	if err != nil {
		t.Fatal(err)
	}
	// Consumers that are added after it on the same channel work, so the missing one has been tried
	// by then.
	for i := range 5 {
		name := s.queue(t, fmt.Sprint("more", i))
		more, err := sub.SubscribeQueue(t.Context(), name, 1)
		if err != nil {
			t.Fatal(err)
		}
		fill(t, p, name, 1)
		receive(t, more).Ack()
	}
	held.Ack()
	eventually(t, "the held message is settled", func() bool {
		fill(t, p, q, 1)
		m := receive(t, in)
		d, _ := broker.MessageOf(m)
		if d.Redelivered {
			t.Error("the channel was closed by the missing queue")
		}
		return m.Ack()
	})
	s.declare(t, missing)
	fill(t, p, missing, 1)
	receive(t, late).Ack()
}

func TestForeignMessagesArriveAsTheyAre(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{broker.Classic, broker.Quorum} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			s.cfg.QueueType = kind
			q := s.subscription(t, s.topology(t), "sub_1")
			in, err := s.subscriber(t).SubscribeQueue(t.Context(), q, 10)
			if err != nil {
				t.Fatal(err)
			}
			headers := amqp.Table{
				"_watermill_message_uuid": int32(7), "string": "s", "int": int64(-3), "bool": true, "none": nil,
				"bytes": []byte("b"), "float": 1.5, "time": time.Unix(0, 0), "decimal": amqp.Decimal{Scale: 2, Value: 314},
				"x-death": []any{amqp.Table{"count": int64(2), "queue": "q", "at": time.Unix(0, 0), "keys": []any{"k"}}},
				"table":   amqp.Table{"n": amqp.Table{"b": []byte{0xff}}, "f": float32(2)},
			}
			ch := s.channel(t)
			for _, m := range []amqp.Publishing{{Headers: headers, Body: []byte{0, 0xff}}, {}, {MessageId: "prop", Body: make([]byte, 2<<20)}} {
				if err := ch.PublishWithContext(t.Context(), "", q, true, false, m); err != nil {
					t.Fatal(err)
				}
			}
			m := receive(t, in)
			want := map[string]string{
				"string": "s", "int": "-3", "bool": "true", "none": "", "bytes": "b", "float": "1.5",
				"time": "1970-01-01T00:00:00Z", "decimal": "3.14",
				"table": `{"f":"2","n":{"b":"\ufffd"}}`,
			}
			for k, v := range want {
				if m.Metadata[k] != v {
					t.Errorf("header %s is %q, want %q", k, m.Metadata[k], v)
				}
			}
			// RabbitMQ 4 does not pass x-death on.
			if d, ok := m.Metadata["x-death"]; ok && !strings.Contains(d, `"queue":"q"`) {
				t.Errorf("x-death is %q", d)
			}
			if m.UUID != "7" || string(m.Payload) != "\x00\xff" {
				t.Errorf("got id %q, body %q", m.UUID, m.Payload)
			}
			m.Ack()
			if m = receive(t, in); m.UUID != "" || len(m.Payload) != 0 || len(m.Metadata) != 0 {
				t.Errorf("an empty message became %+v", m)
			}
			m.Ack()
			if m = receive(t, in); m.UUID != "prop" || len(m.Payload) != 2<<20 {
				t.Errorf("got id %q, %d bytes", m.UUID, len(m.Payload))
			}
			m.Ack()
		})
	}
}

func TestQuorumQueueDropsNothingAfterManyReturns(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.cfg.QueueType = broker.Quorum
	q := s.subscription(t, s.topology(t), "sub_1")
	fill(t, s.publisher(t), q, 1)
	in, err := s.subscriber(t).SubscribeQueue(t.Context(), q, 1)
	if err != nil {
		t.Fatal(err)
	}
	for range 50 {
		receive(t, in).Nack()
	}
	receive(t, in).Ack()
}

func TestStopDrainsAndRedeliversNoAckedMessage(t *testing.T) {
	t.Parallel()
	stops := map[string]func(sub *broker.Subscriber, cancel context.CancelFunc){
		"close":   func(sub *broker.Subscriber, _ context.CancelFunc) { go func() { _ = sub.Close() }() },
		"context": func(_ *broker.Subscriber, cancel context.CancelFunc) { cancel() },
	}
	for name, stop := range stops {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			q := s.queue(t, "q")
			fill(t, s.publisher(t), q, 50)
			sub := s.subscriber(t)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			in, err := sub.SubscribeQueue(ctx, q, 20)
			if err != nil {
				t.Fatal(err)
			}
			var held []*message.Message
			for range 10 {
				held = append(held, receive(t, in))
			}
			stop(sub, cancel)
			// Prefetched messages that were not received return to the queue, and the channel stays
			// open for those in flight.
			eventually(t, "untaken messages are back", func() bool { return s.depth(t, q) == 40 })
			for _, m := range held {
				if m.Context().Err() != nil {
					t.Error("a message's context ended while draining")
				}
				m.Ack()
			}
			for m := range in {
				t.Errorf("message %s was delivered after the stop", m.UUID)
			}
			var left []string
			ch := s.channel(t)
			for {
				d, ok, err := ch.Get(q, true)
				if err != nil {
					t.Fatal(err)
				}
				if !ok {
					break
				}
				left = append(left, d.MessageId)
			}
			for _, m := range held {
				if slices.Contains(left, m.UUID) {
					t.Errorf("message %s was acked but is still in the queue", m.UUID)
				}
			}
			if len(left) != 40 {
				t.Errorf("%d messages are left, want 40", len(left))
			}
		})
	}
}

func TestStopWaitsForHandlersWithALimit(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.cfg.DrainTimeout = 100 * time.Millisecond
	q := s.queue(t, "q")
	fill(t, s.publisher(t), q, 1)
	sub := s.subscriber(t)
	in, err := sub.SubscribeQueue(t.Context(), q, 1)
	if err != nil {
		t.Fatal(err)
	}
	m := receive(t, in)
	if err := sub.Close(); err != nil {
		t.Fatal(err)
	}
	<-m.Context().Done()
	if n := s.depth(t, q); n != 1 {
		t.Errorf("%d messages in the queue, want the one that was not acknowledged", n)
	}
	if _, err := sub.SubscribeQueue(t.Context(), q, 1); err == nil {
		t.Error("could subscribe after Close")
	}
}

func TestOnlyAcknowledgedMessagesLeaveTheQueue(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.cfg.DrainTimeout = 100 * time.Millisecond
	q := s.queue(t, "q")
	fill(t, s.publisher(t), q, 10)
	sub := s.subscriber(t)
	in, err := sub.SubscribeQueue(t.Context(), q, 10)
	if err != nil {
		t.Fatal(err)
	}
	held := make([]*message.Message, 10)
	for i := range held {
		held[i] = receive(t, in)
	}
	// Acknowledged out of order, with permanent gaps, so that some are acknowledged
	// together with those before them and some alone.
	for _, i := range []int{3, 0, 1, 2, 9, 6} {
		held[i].Ack()
	}
	if err := sub.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := s.subscriber(t).SubscribeQueue(t.Context(), q, 10)
	if err != nil {
		t.Fatal(err)
	}
	var left []string
	for range 4 {
		m := receive(t, again)
		left = append(left, m.UUID)
		m.Ack()
	}
	slices.Sort(left)
	if want := []string{"4", "5", "7", "8"}; !slices.Equal(left, want) {
		t.Errorf("messages that were not acknowledged: %v, want %v", left, want)
	}
	eventually(t, "the queue is empty", func() bool { return s.depth(t, q) == 0 })
}
