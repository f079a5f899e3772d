package broker_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	toxiproxy "github.com/Shopify/toxiproxy/v2"
	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/rs/zerolog"

	"posthorn/services/internal/broker"
)

// patience is how long a test waits for what must come. It is long because a busy machine is no failure.
const patience = 30 * time.Second

func brokerURL(t testing.TB) string {
	t.Helper()
	u := os.Getenv("AMQP_URL") //nolint:forbidigo // the tests' broker
	if u == "" {
		t.Fatal("AMQP_URL is not set: run the tests with make test")
	}
	return u
}

// site is a namespace of its own on the broker, cleaned up after the test.
type site struct {
	broker.Names
	cfg  broker.Config
	conn *amqp.Connection // a plain one, to look at the broker without the code under test

	mu                sync.Mutex
	queues, exchanges map[string]bool
}

func newSite(t testing.TB) *site {
	t.Helper()
	return newSiteOn(t, brokerURL(t))
}

func newSiteOn(t testing.TB, brokerURL string) *site {
	t.Helper()
	s := &site{
		cfg: broker.Config{
			URL: brokerURL, Namespace: "test-" + rand.Text()[:12] + ".", ConnectionName: t.Name(),
			Logger: slog.New(slog.NewTextHandler(t.Output(), nil)), RequeuePause: 20 * time.Millisecond, RetryRungs: []time.Duration{200 * time.Millisecond, 2 * time.Second},
		},
		queues: map[string]bool{}, exchanges: map[string]bool{},
	}
	s.Names = s.cfg.Names()
	conn, err := amqp.Dial(brokerURL)
	if err != nil {
		t.Fatalf("connect to the tests' broker: %v", err)
	}
	s.conn = conn
	t.Cleanup(func() {
		if len(s.queues)+len(s.exchanges) == 0 {
			_ = conn.Close()
			return
		}
		ch, err := conn.Channel()
		if err != nil {
			t.Errorf("clean up: %v", err)
			return
		}
		for q := range s.queues {
			if _, err := ch.QueueDelete(q, false, false, false); err != nil {
				t.Errorf("delete queue: %v", err)
			}
		}
		for e := range s.exchanges {
			if err := ch.ExchangeDelete(e, false, false); err != nil {
				t.Errorf("delete exchange: %v", err)
			}
		}
		_ = conn.Close()
	})
	return s
}

// channel is a plain channel on the broker.
func (s *site) channel(t testing.TB) *amqp.Channel {
	t.Helper()
	ch, err := s.conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	return ch
}

// sweep has queues deleted after the test.
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

// topology declares what all subscriptions share.
func (s *site) topology(t testing.TB) *broker.Topology {
	t.Helper()
	topology, err := broker.NewTopology(s.cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = topology.Close() })
	s.sweepExchanges(s.Events(broker.DefaultAccount), s.Deliver())
	for _, r := range s.cfg.RetryRungs {
		s.sweep(s.Retry(r))
		s.sweepExchanges(s.Retry(r))
	}
	if err := topology.DeclareShared(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	return topology
}

// subscription declares a subscription and gives the name of its queue.
func (s *site) subscription(t testing.TB, topology *broker.Topology, sub string, patterns ...string) string {
	t.Helper()
	s.sweep(s.DeliverQueue(sub), s.DeadQueue(sub))
	if err := topology.DeclareSubscription(t.Context(), sub, broker.DefaultAccount, patterns); err != nil {
		t.Fatal(err)
	}
	return s.DeliverQueue(sub)
}

// queue declares a plain durable classic queue.
func (s *site) queue(t testing.TB, name string) string {
	t.Helper()
	name = s.Namespace + name
	s.sweep(name)
	s.declare(t, name)
	return name
}

func (s *site) declare(t testing.TB, name string) {
	t.Helper()
	ch := s.channel(t)
	defer func() { _ = ch.Close() }()
	if _, err := ch.QueueDeclare(name, true, false, false, false, nil); err != nil {
		t.Fatal(err)
	}
}

// depth is the number of messages that wait in a queue.
func (s *site) depth(t testing.TB, queue string) int {
	t.Helper()
	ch := s.channel(t)
	defer func() { _ = ch.Close() }()
	q, err := ch.QueueDeclarePassive(queue, true, false, false, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	return q.Messages
}

func (s *site) publisher(t testing.TB) *broker.Publisher {
	t.Helper()
	p, err := broker.NewPublisher(s.cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return p
}

func (s *site) subscriber(t testing.TB) *broker.Subscriber {
	t.Helper()
	sub, err := broker.NewSubscriber(s.cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = sub.Close() })
	return sub
}

// fill publishes n messages with the ids 0 to n-1 to a queue.
func fill(t testing.TB, p *broker.Publisher, queue string, n int) {
	t.Helper()
	if _, err := p.PublishAll(t.Context(), messages(queue, n)); err != nil {
		t.Fatal(err)
	}
}

func messages(queue string, n int) []broker.Publishing {
	batch := make([]broker.Publishing, n)
	for i := range batch {
		batch[i] = broker.Publishing{Key: queue, Mandatory: true, ID: fmt.Sprint(i), Body: []byte("{}"), ContentType: "application/json"}
	}
	return batch
}

// receive takes one value, or fails the test.
func receive[T any](t testing.TB, c <-chan T) T {
	t.Helper()
	select {
	case v, ok := <-c:
		if !ok {
			t.Fatal("channel was closed")
		}
		return v
	case <-time.After(patience):
		t.Fatal("nothing came")
	}
	panic("unreachable")
}

// eventually polls a condition until it holds.
func eventually(t testing.TB, what string, condition func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("not in time: %s", what)
		}
	}
}

// line is a connection to the broker that can be cut.
type line struct {
	t     testing.TB
	proxy *toxiproxy.Proxy
	url   string
}

func newLine(t testing.TB, brokerURL string) *line {
	t.Helper()
	u, err := url.Parse(brokerURL)
	if err != nil {
		t.Fatal(err)
	}
	l := &line{t: t, proxy: toxiproxy.NewProxy(
		toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop()), t.Name(), "127.0.0.1:0", u.Host)}
	l.up()
	t.Cleanup(l.down)
	u.Host = l.proxy.Listen
	l.url = u.String()
	return l
}

// down cuts all connections and refuses new ones.
func (l *line) down() { l.proxy.Stop() }

func (l *line) up() {
	l.t.Helper()
	if err := l.proxy.Start(); err != nil {
		l.t.Fatal(err)
	}
}

// silence swallows all data in both directions while the connections stay open; the function returned ends that,
// and them.
func (l *line) silence() func() {
	l.t.Helper()
	for _, stream := range []string{"upstream", "downstream"} {
		_, err := l.proxy.Toxics.AddToxicJson(strings.NewReader(
			`{"name":"` + stream + `","type":"timeout","stream":"` + stream + `","attributes":{"timeout":0}}`))
		if err != nil {
			l.t.Fatal(err)
		}
	}
	return func() { l.proxy.Toxics.ResetToxics(context.Background()) }
}
