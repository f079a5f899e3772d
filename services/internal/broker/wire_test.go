package broker_test

import (
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	stock "github.com/ThreeDotsLabs/watermill-amqp/v3/pkg/amqp"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/go-cmp/cmp"
	amqp "github.com/rabbitmq/amqp091-go"

	"posthorn/events"
	"posthorn/services/internal/broker"
)

func TestReservedHeadersAreNotSent(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	q := s.queue(t, "q")
	p := s.publisher(t)
	m := messages(q, 1)
	m[0].Headers = map[string]string{"kept": "v", "x-death": "[]", "CC": "x", "BCC": "y", "x-first-death-queue": "q"}
	if _, err := p.PublishAll(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	d, ok, err := s.channel(t).Get(q, true)
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	if diff := cmp.Diff(amqp.Table{"kept": "v", "_watermill_message_uuid": "0"}, d.Headers); diff != "" {
		t.Error(diff)
	}
	if d.ContentType != "application/json" {
		t.Errorf("content type %q", d.ContentType)
	}
}

func TestMessagesArePersistentIfRequested(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		cfg   broker.Config
		asked bool
		want  uint8
	}{
		"usually":          {broker.Config{}, false, amqp.Transient},
		"dead letters":     {broker.Config{}, true, amqp.Persistent},
		"by configuration": {broker.Config{Persistent: true}, false, amqp.Persistent},
		"quorum queues":    {broker.Config{QueueType: broker.Quorum}, false, amqp.Persistent},
	} {
		s := newSite(t)
		s.cfg.Persistent, s.cfg.QueueType = c.cfg.Persistent, c.cfg.QueueType
		q, m := s.queue(t, "q"), messages("", 1)
		m[0].Key, m[0].Persistent = q, c.asked
		if _, err := s.publisher(t).PublishAll(t.Context(), m); err != nil {
			t.Fatal(err)
		}
		d, ok, err := s.channel(t).Get(q, true)
		if err != nil || !ok || d.DeliveryMode != c.want {
			t.Errorf("%s: delivery mode %d, want %d, %v", name, d.DeliveryMode, c.want, err)
		}
	}
}

// Any Watermill program can use the events exchange, with the stock library and its defaults.
func TestStockWatermillReadsAndWritesOurExchange(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.topology(t)
	queue := s.Namespace + "stock"
	s.sweep(queue)
	cfg := stock.NewDurablePubSubConfig(s.cfg.URL, func(string) string { return queue })
	cfg.Exchange.GenerateName = func(string) string { return s.Events(events.DefaultAccount) }
	cfg.Exchange.Type = "topic"
	cfg.QueueBind.GenerateRoutingKey = func(topic string) string { return topic }
	cfg.Publish.GenerateRoutingKey = func(topic string) string { return topic }
	theirs, err := stock.NewSubscriber(cfg, watermill.NopLogger{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = theirs.Close() }()
	in, err := theirs.Subscribe(t.Context(), "photo.*")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.publisher(t).PublishAll(t.Context(), []broker.Publishing{{
		Exchange: s.Events(events.DefaultAccount), Key: "photo.liked", Mandatory: true, ID: "evt_1",
		Headers: map[string]string{"traceparent": "00-1"}, ContentType: "application/json", Body: []byte(`{"a":1}`),
	}}); err != nil {
		t.Fatal(err)
	}
	m := receive(t, in)
	m.Ack()
	if m.UUID != "evt_1" || string(m.Payload) != `{"a":1}` {
		t.Errorf("got %q, %q", m.UUID, m.Payload)
	}
	if diff := cmp.Diff(message.Metadata{"traceparent": "00-1"}, m.Metadata); diff != "" {
		t.Error(diff)
	}

	ours := s.subscriber(t)
	s.sweep(s.Namespace + "listen.default.photo.#")
	back, err := ours.Subscribe(t.Context(), "photo.#")
	if err != nil {
		t.Fatal(err)
	}
	pub, err := stock.NewPublisher(cfg, watermill.NopLogger{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = pub.Close() }()
	sent := message.NewMessage("evt_2", []byte("x"))
	sent.Metadata.Set("k", "v")
	if err := pub.Publish("photo.unliked", sent); err != nil {
		t.Fatal(err)
	}
	got := receive(t, back)
	got.Ack()
	if got.UUID != "evt_2" || got.Metadata.Get("k") != "v" || string(got.Payload) != "x" {
		t.Errorf("got %+v", got)
	}
}

func TestConfigIsValidated(t *testing.T) {
	t.Parallel()
	good := broker.Config{URL: "amqp://localhost/"}
	if err := good.Validate(); err != nil {
		t.Error(err)
	}
	for name, change := range map[string]func(*broker.Config){
		"no url":           func(c *broker.Config) { c.URL = "" },
		"url of a website": func(c *broker.Config) { c.URL = "http://localhost/" },
		"queue type":       func(c *broker.Config) { c.QueueType = "stream" },
		"prefetch":         func(c *broker.Config) { c.Prefetch = 70_000 },
		"timeout":          func(c *broker.Config) { c.PublishTimeout = -1 },
		"rung":             func(c *broker.Config) { c.RetryRungs = []time.Duration{time.Microsecond} },
	} {
		bad := good
		change(&bad)
		if bad.Validate() == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestRungForIsLongestThatFits(t *testing.T) {
	t.Parallel()
	var cfg broker.Config
	for d, want := range map[time.Duration]time.Duration{
		0:                 time.Second,
		time.Second:       time.Second,
		4 * time.Second:   time.Second,
		5 * time.Second:   5 * time.Second,
		119 * time.Second: 30 * time.Second,
		48 * time.Hour:    time.Hour,
		-time.Second:      time.Second,
	} {
		if got := cfg.RungFor(d); got != want {
			t.Errorf("RungFor(%s) is %s, want %s", d, got, want)
		}
	}
}

func TestNamesOnTheWire(t *testing.T) {
	t.Parallel()
	n := broker.Names{Namespace: "ns."}
	for got, want := range map[string]string{
		n.Events("default"): "ns.events", n.Events(""): "ns.events", n.Events("acme"): "ns.events.acme",
		n.Deliver(): "ns.deliver", n.DeliverQueue("sub_1"): "ns.deliver.sub_1", n.DeadQueue("sub_1"): "ns.dead.sub_1",
		n.Retry(5 * time.Second): "ns.retry.5s", n.Retry(2 * time.Minute): "ns.retry.2m", n.Retry(time.Hour): "ns.retry.1h",
		n.Retry(90 * time.Second): "ns.retry.1m30s", n.Retry(200 * time.Millisecond): "ns.retry.200ms",
	} {
		if got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}
