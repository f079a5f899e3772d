package e2e_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"posthorn/migrations/pgtest"
	"posthorn/services/api"
	"posthorn/services/delivery"
	"posthorn/services/internal/broker"
	"posthorn/services/internal/envelope"
	"posthorn/services/internal/eventlog"
	"posthorn/services/internal/operate"
	"posthorn/services/internal/postgres"
	"posthorn/services/internal/retry"
	"posthorn/services/internal/sender"
	"posthorn/services/internal/signing"
	"posthorn/services/internal/subscription"
	"posthorn/services/photos"
	"posthorn/services/relay"
)

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "posthorn-e2e-")
	if err != nil {
		panic(err)
	}
	binaryDir = dir
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		if err := os.RemoveAll(dir); err != nil {
			panic(err)
		}
		os.Exit(code)
	}))
}

// patience is how long a test waits for something that should happen at once,
// on a machine that may be busy.
const patience = 30 * time.Second

// system is a whole Posthorn in this process, on a database and a broker
// namespace of its own.
type system struct {
	t      *testing.T
	db     *sql.DB
	dbURL  string
	broker broker.Config
	keys   *signing.Keyring
	url    string
	logger *slog.Logger
}

// newSystem prepares a system without running parts. amqpURL is empty for the
// shared broker.
func newSystem(t *testing.T, amqpURL string) *system {
	t.Helper()
	if amqpURL == "" {
		if amqpURL = os.Getenv("AMQP_URL"); amqpURL == "" {
			t.Fatal("AMQP_URL is not set: run make test, which starts the servers that the tests need")
		}
	}
	var name [6]byte
	_, _ = rand.Read(name[:])
	s := &system{t: t, dbURL: pgtest.URL(t), logger: slog.New(slog.NewTextHandler(t.Output(), nil))}
	s.broker = broker.Config{
		URL: amqpURL, Namespace: "e2e-" + hex.EncodeToString(name[:]) + ".", Logger: s.logger,
		RetryRungs: []time.Duration{200 * time.Millisecond, time.Second, 5 * time.Second},
	}
	s.setKeys(signing.GenerateKey())
	s.db = s.pool("test", 4)
	t.Cleanup(s.removeTopology)
	return s
}

// startSystem starts one of each part.
func startSystem(t *testing.T) *system {
	t.Helper()
	s := newSystem(t, "")
	s.startAPI()
	s.startRelay()
	s.startDelivery(nil)
	return s
}

func (s *system) pool(name string, conns int) *sql.DB {
	s.t.Helper()
	db, err := postgres.Open(s.dbURL, name, conns)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = db.Close() })
	return db
}

// run runs a part until the test ends or the returned stop is called, which
// waits until the part is drained.
func (s *system) run(name string, part func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(s.t.Context()))
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := part(ctx); err != nil {
			s.t.Errorf("%s: %v", name, err)
		}
	}()
	stop = func() { cancel(); <-done }
	s.t.Cleanup(stop)
	return stop
}

func (s *system) startAPI() {
	s.t.Helper()
	db := s.pool("api", 8)
	a, err := api.New(api.Config{Operations: operate.New(db, s.keys), Products: []api.Product{photos.New(db)}, Logger: s.logger})
	if err != nil {
		s.t.Fatal(err)
	}
	projector, err := photos.NewProjector(photos.Config{DB: db, Logger: s.logger})
	if err != nil {
		s.t.Fatal(err)
	}
	s.run("photos", projector.Run)
	s.run("api", a.Run)
	server := httptest.NewServer(a)
	s.t.Cleanup(server.Close)
	s.url = server.URL
}

func (s *system) startRelay() (stop func()) {
	s.t.Helper()
	publisher, err := broker.NewPublisher(s.broker)
	if err != nil {
		s.t.Fatal(err)
	}
	topology, err := broker.NewTopology(s.broker)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _, _ = publisher.Close(), topology.Close() })
	r := relay.New(relay.Config{SweepEvery: time.Second, AskEvery: time.Second}, relay.Parts{
		DB: s.pool("relay", 4), Publisher: publisher, Topology: topology, Broker: s.broker, Logger: s.logger,
		Messages: s.messages(), Metrics: prometheus.NewRegistry(),
	})
	return s.run("relay", r.Run)
}

func (s *system) startDelivery(schedule retry.Schedule) (stop func()) {
	s.t.Helper()
	consumers, err := broker.NewConsumers(s.broker)
	if err != nil {
		s.t.Fatal(err)
	}
	publisher, err := broker.NewPublisher(s.broker)
	if err != nil {
		s.t.Fatal(err)
	}
	topology, err := broker.NewTopology(s.broker)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _, _ = publisher.Close(), topology.Close() })
	d := delivery.New(delivery.Config{Schedule: schedule}, delivery.Parts{
		DB: s.pool("delivery", 6), Keys: s.keys, Messages: s.messages(), Broker: s.broker, Publisher: publisher, Topology: topology, Consumers: consumers,
		Sender: sender.New(sender.Config{AllowNetworks: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}),
		Logger: s.logger, Metrics: prometheus.NewRegistry(),
	})
	return s.run("delivery", d.Run)
}

// setKeys sets POSTHORN_SECRET_KEY for parts that are started from now on.
func (s *system) setKeys(text string) {
	s.t.Helper()
	keys, err := signing.ParseKeyring(text)
	if err != nil {
		s.t.Fatal(err)
	}
	s.keys = keys
}

// messages signs and verifies the messages of the system.
func (s *system) messages() *envelope.Authenticator {
	return envelope.NewAuthenticator(s.keys.Derive(envelope.Purpose))
}

// removeTopology restores the shared broker.
func (s *system) removeTopology() {
	topology, err := broker.NewTopology(s.broker)
	if err != nil {
		s.t.Error(err)
		return
	}
	defer func() { _ = topology.Close() }()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.t.Context()), patience)
	defer cancel()
	subs, err := subscription.All(ctx, s.db)
	if err != nil {
		return // the database is gone, and with it the list to remove
	}
	_ = topology.DeleteQueue(ctx, s.broker.Names().Memory())
	for _, sub := range subs {
		_ = topology.DeleteSubscription(ctx, string(sub.ID)) // a broker that is gone needs no cleanup
	}
}

// consume consumes a queue; got returns the messages so far.
func (s *system) consume(queue string) (got func() []broker.Message) {
	s.t.Helper()
	got, _ = s.consumeUntil(queue)
	return got
}

// consumeUntil is a consume that can be stopped.
func (s *system) consumeUntil(queue string) (got func() []broker.Message, stop func()) {
	s.t.Helper()
	consumers, err := broker.NewConsumers(s.broker)
	if err != nil {
		s.t.Fatal(err)
	}
	var (
		mu         sync.Mutex
		deliveries []broker.Message
	)
	err = consumers.Add(queue, 100, func(_ context.Context, d broker.Message) error {
		mu.Lock()
		defer mu.Unlock()
		deliveries = append(deliveries, d)
		return nil
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return func() []broker.Message {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(deliveries)
	}, s.run("consume", consumers.Run)
}

// do sends a request with a JSON body and decodes the JSON response.
func (s *system) do(method, path string, body, answer any) int {
	s.t.Helper()
	var payload io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			s.t.Fatal(err)
		}
		payload = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(s.t.Context(), method, s.url+path, payload)
	if err != nil {
		s.t.Fatal(err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	if answer != nil {
		if err := json.Unmarshal(text, answer); err != nil {
			s.t.Fatalf("%s %s: %d %s: %v", method, path, resp.StatusCode, text, err)
		}
	}
	return resp.StatusCode
}

// must is a do that requires a 2xx.
func (s *system) must(method, path string, body, answer any) {
	s.t.Helper()
	var raw json.RawMessage
	status := s.do(method, path, body, nilOr(answer, &raw))
	if status/100 != 2 {
		s.t.Fatalf("%s %s: status %d: %s", method, path, status, raw)
	}
	if answer != nil {
		if err := json.Unmarshal(raw, answer); err != nil {
			s.t.Fatalf("%s %s: %s: %v", method, path, raw, err)
		}
	}
}

func nilOr(wanted any, raw *json.RawMessage) any {
	if wanted == nil {
		return nil
	}
	return raw
}

type subscribed struct {
	ID     string `json:"id"`
	Secret string `json:"secret"`
	Status string `json:"status"`
}

// subscribe subscribes a URL; settings are further fields of the subscription.
func (s *system) subscribe(url string, settings map[string]any, types ...string) subscribed {
	s.t.Helper()
	body := map[string]any{"url": url, "eventTypes": types}
	maps.Copy(body, settings)
	var got subscribed
	s.must(http.MethodPost, "/subscription", body, &got)
	return got
}

// post appends events of one type in batches and returns their ids.
func (s *system) post(eventType string, n int) []string {
	s.t.Helper()
	var ids []string
	for n > 0 {
		batch := make([]map[string]any, min(n, 1000))
		for i := range batch {
			batch[i] = map[string]any{"type": eventType, "subject": fmt.Sprintf("s/%d", i), "data": map[string]int{"n": i}}
		}
		var answer struct {
			Events []struct {
				ID string `json:"id"`
			} `json:"events"`
		}
		s.must(http.MethodPost, "/events", batch, &answer)
		for _, e := range answer.Events {
			ids = append(ids, e.ID)
		}
		n -= len(batch)
	}
	return ids
}

// ledger counts the deliveries of a subscription by status.
func (s *system) ledger(id string) map[string]int {
	s.t.Helper()
	rows, err := s.db.QueryContext(s.t.Context(), `
		SELECT status, count(*) FROM posthorn.deliveries WHERE subscription_id = $1::uuid GROUP BY status`,
		strings.TrimPrefix(id, "sub_"))
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = rows.Close() }()
	counts := map[string]int{}
	for rows.Next() {
		var status string
		var n int
		if err := rows.Scan(&status, &n); err != nil {
			s.t.Fatal(err)
		}
		counts[status] = n
	}
	if err := rows.Err(); err != nil {
		s.t.Fatal(err)
	}
	return counts
}

// request is a request that a subscriber got.
type request struct {
	header http.Header
	body   []byte
	at     time.Time
}

// subscriber is an HTTP server that records requests and responds with the
// status that answer returns; nil means 200.
type subscriber struct {
	*httptest.Server
	mu       sync.Mutex
	requests []request
	byID     map[string]int
}

func newSubscriber(t *testing.T, answer func(n int, r *http.Request) int) *subscriber {
	t.Helper()
	sub := &subscriber{byID: map[string]int{}}
	sub.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return // the sender disconnected
		}
		sub.mu.Lock()
		sub.requests = append(sub.requests, request{r.Header.Clone(), body, time.Now()})
		sub.byID[r.Header.Get("Webhook-Id")]++
		n := sub.byID[r.Header.Get("Webhook-Id")]
		sub.mu.Unlock()
		if answer != nil {
			w.WriteHeader(answer(n, r))
		}
	}))
	t.Cleanup(sub.Close)
	return sub
}

func (s *subscriber) got() []request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.requests)
}

// times returns how often each event arrived.
func (s *subscriber) times() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.byID)
}

// eventually waits until the condition holds.
func eventually(t *testing.T, within time.Duration, what string, condition func() bool) {
	t.Helper()
	deadline := time.NewTimer(within)
	defer deadline.Stop()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("after %v still not: %s", within, what)
		}
	}
}

// relayed reports whether the relay is at the end of the log.
func (s *system) relayed() bool {
	s.t.Helper()
	horizon, err := eventlog.Horizon(s.t.Context(), s.db)
	if err != nil {
		s.t.Fatal(err)
	}
	position, err := eventlog.RelayPosition(s.t.Context(), s.db)
	if err != nil {
		s.t.Fatal(err)
	}
	return position >= horizon
}

// once fails unless the subscriber got exactly these events, each once.
func once(t *testing.T, sub *subscriber, ids []string) {
	t.Helper()
	times := sub.times()
	for _, id := range ids {
		if times[id] != 1 {
			t.Errorf("event %s arrived %d times, want once", id, times[id])
		}
		delete(times, id)
	}
	for id, n := range times {
		t.Errorf("unexpected event %q arrived %d times", id, n)
	}
}

// answerUntil answers 503 until the channel is closed.
func answerUntil(failing <-chan struct{}) func(int, *http.Request) int {
	return func(int, *http.Request) int {
		select {
		case <-failing:
			return http.StatusOK
		default:
			return http.StatusServiceUnavailable
		}
	}
}
