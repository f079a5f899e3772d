package broker_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"sync"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"posthorn/events"
	"posthorn/services/internal/broker"
	"posthorn/services/internal/proxy"
)

// patience is how long a test waits for an expected event. It is long because a busy machine must
// not fail a test.
const patience = 30 * time.Second

func brokerURL(tb testing.TB) string {
	tb.Helper()
	u := os.Getenv("AMQP_URL")
	if u == "" {
		tb.Fatal("AMQP_URL is not set: run the tests with make test")
	}
	return u
}

// site is a namespace on the broker, cleaned up after the test.
type site struct {
	broker.Names
	cfg  broker.Config
	conn *amqp.Connection // a plain one, to inspect the broker without the code under test

	mu                sync.Mutex
	queues, exchanges map[string]bool
}

func newSite(tb testing.TB) *site {
	tb.Helper()
	return newSiteOn(tb, brokerURL(tb))
}

func newSiteOn(tb testing.TB, brokerURL string) *site {
	tb.Helper()
	s := &site{
		cfg: broker.Config{
			URL: brokerURL, Namespace: "test-" + rand.Text()[:12] + ".", ConnectionName: tb.Name(),
			Logger: slog.New(slog.NewTextHandler(tb.Output(), nil)), RequeuePause: 20 * time.Millisecond, MaxBackoff: 300 * time.Millisecond, RetryRungs: []time.Duration{200 * time.Millisecond, 2 * time.Second},
		},
		queues: map[string]bool{}, exchanges: map[string]bool{},
	}
	s.Names = s.cfg.Names()
	conn, err := amqp.Dial(brokerURL)
	if err != nil {
		tb.Fatalf("connect to the tests' broker: %v", err)
	}
	s.conn = conn
	tb.Cleanup(func() {
		if len(s.queues)+len(s.exchanges) == 0 {
			_ = conn.Close()
			return
		}
		ch, err := conn.Channel()
		if err != nil {
			tb.Errorf("clean up: %v", err)
			return
		}
		for q := range s.queues {
			if _, err := ch.QueueDelete(q, false, false, false); err != nil {
				tb.Errorf("delete queue: %v", err)
			}
		}
		for e := range s.exchanges {
			if err := ch.ExchangeDelete(e, false, false); err != nil {
				tb.Errorf("delete exchange: %v", err)
			}
		}
		_ = conn.Close()
	})
	return s
}

// channel opens a plain channel on the broker.
func (s *site) channel(tb testing.TB) *amqp.Channel {
	tb.Helper()
	ch, err := s.conn.Channel()
	if err != nil {
		tb.Fatal(err)
	}
	return ch
}

// sweep deletes queues after the test.
func (s *site) sweep(queues ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, q := range queues {
		s.queues[q] = true
	}
}

func (s *site) sweepExchanges(exchanges ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range exchanges {
		s.exchanges[e] = true
	}
}

// topology declares the shared topology.
func (s *site) topology(tb testing.TB) *broker.Topology {
	tb.Helper()
	topology, err := broker.NewTopology(s.cfg)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = topology.Close() })
	s.sweepExchanges(s.Events(events.DefaultAccount), s.Deliver())
	for _, r := range s.cfg.RetryRungs {
		s.sweep(s.Retry(r))
		s.sweepExchanges(s.Retry(r))
	}
	if err := topology.DeclareShared(tb.Context(), nil); err != nil {
		tb.Fatal(err)
	}
	return topology
}

// subscription declares a subscription and returns the name of its queue.
func (s *site) subscription(tb testing.TB, topology *broker.Topology, sub string, patterns ...string) string {
	tb.Helper()
	s.sweep(s.DeliverQueue(sub), s.DeadQueue(sub))
	if err := topology.DeclareSubscription(tb.Context(), sub, events.DefaultAccount, patterns); err != nil {
		tb.Fatal(err)
	}
	return s.DeliverQueue(sub)
}

// queue declares a plain durable classic queue.
func (s *site) queue(tb testing.TB, name string) string {
	tb.Helper()
	name = s.Namespace + name
	s.sweep(name)
	s.declare(tb, name)
	return name
}

func (s *site) declare(tb testing.TB, name string) {
	tb.Helper()
	ch := s.channel(tb)
	defer func() { _ = ch.Close() }()
	if _, err := ch.QueueDeclare(name, true, false, false, false, nil); err != nil {
		tb.Fatal(err)
	}
}

// depth returns the number of messages that wait in a queue.
func (s *site) depth(tb testing.TB, queue string) int {
	tb.Helper()
	ch := s.channel(tb)
	defer func() { _ = ch.Close() }()
	q, err := ch.QueueDeclarePassive(queue, true, false, false, false, nil)
	if err != nil {
		tb.Fatal(err)
	}
	return q.Messages
}

func (s *site) publisher(tb testing.TB) *broker.Publisher {
	tb.Helper()
	p, err := broker.NewPublisher(s.cfg)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = p.Close() })
	return p
}

func (s *site) subscriber(tb testing.TB) *broker.Subscriber {
	tb.Helper()
	sub, err := broker.NewSubscriber(s.cfg)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = sub.Close() })
	return sub
}

// fill publishes n messages with the ids 0 to n-1 to a queue.
func fill(tb testing.TB, p *broker.Publisher, queue string, n int) {
	tb.Helper()
	if _, err := p.PublishAll(tb.Context(), messages(queue, n)); err != nil {
		tb.Fatal(err)
	}
}

func messages(queue string, n int) []broker.Publishing {
	batch := make([]broker.Publishing, n)
	for i := range batch {
		batch[i] = broker.Publishing{Key: queue, Mandatory: true, ID: fmt.Sprint(i), Body: []byte("{}"), ContentType: "application/json"}
	}
	return batch
}

// receive receives one value, or fails the test.
func receive[T any](tb testing.TB, c <-chan T) T {
	tb.Helper()
	select {
	case v, ok := <-c:
		if !ok {
			tb.Fatal("channel was closed")
		}
		return v
	case <-time.After(patience):
		tb.Fatal("no value arrived")
	}
	panic("unreachable")
}

// eventually polls a condition until it holds.
func eventually(tb testing.TB, what string, condition func() bool) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(tb.Context()), patience)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			tb.Fatalf("timed out: %s", what)
		}
	}
}

// newProxy returns a proxy to a broker, and the broker's URL through it.
func newProxy(tb testing.TB, brokerURL string) (*proxy.Proxy, string) {
	tb.Helper()
	u, err := url.Parse(brokerURL)
	if err != nil {
		tb.Fatal(err)
	}
	l, err := proxy.New(tb.Context(), u.Host)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(l.Close)
	u.Host = l.Addr()
	return l, u.String()
}

func mend(tb testing.TB, l *proxy.Proxy) {
	tb.Helper()
	if err := l.Mend(tb.Context()); err != nil {
		tb.Fatal(err)
	}
}
