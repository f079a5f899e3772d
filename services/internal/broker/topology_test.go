package broker_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"posthorn/events"
	"posthorn/services/internal/broker"
)

func TestEventsReachSubscriptionsByPattern(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{broker.Classic, broker.Quorum} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			s.cfg.QueueType = kind
			topology := s.topology(t)
			q := s.subscription(t, topology, "sub_1", "photo.*", "LIKED_PHOTO")
			s.subscription(t, topology, "sub_1", "photo.*", "LIKED_PHOTO") // again: no error
			p := s.publisher(t)
			publish := func(account string, keys ...string) {
				t.Helper()
				for _, k := range keys {
					if _, err := p.PublishAll(t.Context(), []broker.Publishing{{Exchange: s.Events(account), Key: k}}); err != nil {
						t.Fatal(err)
					}
				}
			}
			publish("default", "photo.liked", "LIKED_PHOTO", "photo", "photo.liked.twice", "other")
			if n := s.depth(t, q); n != 2 {
				t.Errorf("%d messages, want 2", n)
			}
			s.sweepExchanges(s.Events("acme"))
			if err := topology.DeclareShared(t.Context(), []string{"acme"}); err != nil {
				t.Fatal(err)
			}
			publish("acme", "photo.liked")
			if n := s.depth(t, q); n != 2 {
				t.Errorf("an event of another account came through")
			}
			if err := topology.Unbind(t.Context(), "sub_1", "default", []string{"photo.*", "never.bound"}); err != nil {
				t.Error(err)
			}
			if err := topology.Bind(t.Context(), "sub_1", "default", []string{"other"}); err != nil {
				t.Error(err)
			}
			publish("default", "photo.liked", "other")
			messages, consumers, exists, err := topology.Depth(t.Context(), q)
			if messages != 3 || consumers != 0 || !exists || err != nil {
				t.Errorf("depth is %d, %d, %v, %v", messages, consumers, exists, err)
			}
		})
	}
}

func TestMessageComesBackFromRetryQueue(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	topology := s.topology(t)
	q := s.subscription(t, topology, "sub_1", "#")
	other := s.subscription(t, topology, "sub_2", "#")
	c, p := s.consumers(t), s.publisher(t)
	tries := make(chan time.Time, 10)
	rung := s.cfg.RungFor(time.Second)
	// Three hops: a broker that took them for a cycle of dead letters would drop the message.
	if err := c.Add(q, 1, func(ctx context.Context, d broker.Message) error {
		tries <- time.Now()
		if len(d.Headers["n"]) == 3 {
			return nil
		}
		headers := d.Headers
		headers["n"] += "x"
		_, err := p.PublishAll(ctx, []broker.Publishing{{
			Exchange: s.Retry(rung), Key: "sub_1", Mandatory: true, ID: d.ID, Headers: headers, Body: d.Body,
		}})
		return err
	}); err != nil {
		t.Fatal(err)
	}
	stop := run(t, c)
	if _, err := p.PublishAll(t.Context(), []broker.Publishing{{Exchange: s.Deliver(), Key: "sub_1", Mandatory: true, ID: "e"}}); err != nil {
		t.Fatal(err)
	}
	last := receive(t, tries)
	for range 3 {
		next := receive(t, tries)
		if d := next.Sub(last); d < rung-10*time.Millisecond {
			t.Errorf("returned after %s, want %s", d, rung)
		}
		last = next
	}
	stop()
	if n := s.depth(t, q) + s.depth(t, other) + s.depth(t, s.Retry(rung)); n != 0 {
		t.Errorf("%d messages left", n)
	}
}

func TestTopologyToleratesMissingQueues(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	topology := s.topology(t)
	if err := topology.Unbind(t.Context(), "sub_none", "default", []string{"a"}); err != nil {
		t.Errorf("unbinding a missing queue: %v", err)
	}
	if err := topology.Unbind(t.Context(), "sub_none", "nobody", []string{"a"}); err != nil {
		t.Errorf("unbinding from a missing exchange: %v", err)
	}
	if err := topology.DeleteSubscription(t.Context(), "sub_none"); err != nil {
		t.Errorf("deleting a missing queue: %v", err)
	}
	if _, _, exists, err := topology.Depth(t.Context(), s.DeliverQueue("sub_none")); exists || err != nil {
		t.Errorf("depth of a missing queue: %v, %v", exists, err)
	}
	if err := topology.Bind(t.Context(), "sub_none", "default", []string{"a"}); !errors.Is(err, broker.ErrNotFound) {
		t.Errorf("binding a missing queue: %v", err)
	}
	s.subscription(t, topology, "sub_1", "a") // still works: no channel was left broken
}

func TestForeignQueueIsReportedAndAffectsNoOther(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	topology := s.topology(t)
	s.sweep(s.DeliverQueue("sub_1"), s.DeadQueue("sub_1"))
	if _, err := s.channel(t).QueueDeclare(s.DeliverQueue("sub_1"), true, false, false, false, amqp.Table{"x-message-ttl": 1000}); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 10 {
		wg.Go(func() {
			s.sweep(s.DeliverQueue(fmt.Sprint("good", i)), s.DeadQueue(fmt.Sprint("good", i)))
			if err := topology.DeclareSubscription(t.Context(), fmt.Sprint("good", i), "default", []string{"a"}); err != nil {
				t.Error(err)
			}
		})
		wg.Go(func() {
			err := topology.DeclareSubscription(t.Context(), "sub_1", "default", []string{"a"})
			if !errors.Is(err, broker.ErrForeign) {
				t.Errorf("got %v, want ErrForeign", err)
			}
		})
	}
	wg.Wait()
	if err := topology.DeleteSubscription(t.Context(), "sub_1"); err != nil {
		t.Fatal(err)
	}
	s.subscription(t, topology, "sub_1", "a")
}

func TestManyDeclarationsRestoreMissingQueuesAndReportForeignOnes(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	topology, p := s.topology(t), s.publisher(t)
	s.sweepExchanges(s.Events("new"))
	subs := make([]broker.Declaration, 20)
	for i := range subs {
		id := fmt.Sprint("sub_", i)
		s.sweep(s.DeliverQueue(id), s.DeadQueue(id))
		subs[i] = broker.Declaration{Subscription: id, Account: events.DefaultAccount, Patterns: []string{"a", id}}
	}
	subs[3].Account = "new" // its exchange is not declared
	ch := s.channel(t)
	if _, err := ch.QueueDeclare(s.DeliverQueue("sub_7"), true, false, false, false, amqp.Table{"x-message-ttl": 1000}); err != nil {
		t.Fatal(err)
	}
	declare := func() {
		t.Helper()
		for i, err := range topology.DeclareSubscriptions(t.Context(), subs) {
			if foreign := i == 7; errors.Is(err, broker.ErrForeign) != foreign || (err != nil) != foreign {
				t.Errorf("subscription %d: %v", i, err)
			}
		}
	}
	declare()
	// Partly or completely lost meanwhile.
	if _, err := ch.QueueDelete(s.DeliverQueue("sub_1"), false, false, false); err != nil {
		t.Fatal(err)
	}
	if err := ch.QueueUnbind(s.DeliverQueue("sub_2"), "sub_2", s.Events(events.DefaultAccount), nil); err != nil {
		t.Fatal(err)
	}
	if err := ch.QueueUnbind(s.DeliverQueue("sub_4"), "sub_4", s.Deliver(), nil); err != nil {
		t.Fatal(err)
	}
	declare()
	if err := topology.DeleteSubscription(t.Context(), "sub_7"); err != nil {
		t.Fatal(err)
	}
	for i, err := range topology.DeclareSubscriptions(t.Context(), subs) { // in one request, this time
		if err != nil {
			t.Errorf("subscription %d: %v", i, err)
		}
	}
	for _, sub := range subs {
		_, err := p.PublishAll(t.Context(), []broker.Publishing{
			{Exchange: s.Events(sub.Account), Key: sub.Subscription, Mandatory: true},
			{Exchange: s.Deliver(), Key: sub.Subscription, Mandatory: true},
		})
		if n := s.depth(t, s.DeliverQueue(sub.Subscription)); err != nil || n != 2 {
			t.Errorf("queue of %s has %d messages, want 2: %v", sub.Subscription, n, err)
		}
	}
}

func TestTopologyReportsUnavailableBrokerAndRecovers(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	l, through := newProxy(t, s.cfg.URL)
	s.cfg.URL = through
	topology := s.topology(t)
	l.Cut()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := topology.Bind(ctx, "sub_1", "default", []string{"a"}); !errors.Is(err, broker.ErrUnavailable) {
		t.Errorf("got %v, want ErrUnavailable", err)
	}
	mend(t, l)
	s.subscription(t, topology, "sub_1", "a")
	l.Silence()
	ctx, cancel = context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := topology.Bind(ctx, "sub_1", "default", []string{"a"}); !errors.Is(err, broker.ErrUnavailable) {
		t.Errorf("on a silent connection: got %v, want ErrUnavailable", err)
	}
	l.Heal()
	s.subscription(t, topology, "sub_1", "b")
}

// The stock subscriber uses one channel per subscription, and a connection can have only 2,047.
func TestMoreSubscriptionsThanChannelsAreAllAlive(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	n := 2200
	if testing.Short() {
		n = 300
	}
	s.cfg.PublishTimeout = time.Minute
	got := make(chan string, n)
	c, p := s.consumers(t), s.publisher(t)
	ch := s.channel(t)
	batch := make([]broker.Publishing, n)
	for i := range n {
		q := fmt.Sprintf("%sq%d", s.Namespace, i)
		// The broker deletes them with their last consumer, which is faster than one by one.
		if _, err := ch.QueueDeclare(q, true, true, false, true, nil); err != nil {
			t.Fatal(err)
		}
		if err := c.Add(q, 8, func(context.Context, broker.Message) error {
			got <- q
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		batch[i] = broker.Publishing{Key: q, Mandatory: true}
	}
	if _, err := ch.QueueDeclarePassive(batch[n-1].Key, true, true, false, false, nil); err != nil {
		t.Fatal(err)
	}
	run(t, c)
	if _, err := p.PublishAll(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for range n {
		seen[receive(t, got)] = true
	}
	if len(seen) != n {
		t.Errorf("%d of %d subscriptions got their message", len(seen), n)
	}
}

func TestPurgingEmptiesOneQueue(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	topology := s.topology(t)
	q := s.subscription(t, topology, "sub_1", "#")
	other := s.subscription(t, topology, "sub_2", "#")
	p := s.publisher(t)
	if _, err := p.PublishAll(t.Context(), []broker.Publishing{{Exchange: s.Events("default"), Key: "a"}, {Exchange: s.Events("default"), Key: "b"}}); err != nil {
		t.Fatal(err)
	}
	if err := topology.Purge(t.Context(), q); err != nil {
		t.Fatal(err)
	}
	if n, m := s.depth(t, q), s.depth(t, other); n != 0 || m != 2 {
		t.Errorf("%d messages in the purged queue, want 0, and %d in the other, want 2", n, m)
	}
	if err := topology.Purge(t.Context(), q+".missing"); err != nil {
		t.Errorf("purge of a missing queue: %v", err)
	}
}
