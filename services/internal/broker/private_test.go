package broker_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"posthorn/events"
	"posthorn/services/internal/broker"
	"posthorn/services/internal/privateserver"
)

// TestOnPrivateNode tests faults of a whole node, so it starts a private one. Its parts run in
// sequence.
//
//nolint:paralleltest // each part disturbs the node
func TestOnPrivateNode(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("/tmp", "broker-test-") //nolint:usetesting // t.TempDir is not accessible to the node's user
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	node, err := privateserver.StartRabbitMQ(ctx, privateserver.Options{
		Dir: dir + "/rabbitmq", Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := node.Stop(context.WithoutCancel(t.Context())); err != nil {
			t.Errorf("stop the node: %v", err)
		}
	})
	t.Run("alarm", func(t *testing.T) { testAlarm(t, node) })
	t.Run("crash", func(t *testing.T) { testCrash(t, node) })
}

func ctl(t *testing.T, node *privateserver.RabbitMQ, args ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
	defer cancel()
	if _, err := node.Ctl(ctx, args...); err != nil {
		t.Error(err)
	}
}

func testAlarm(t *testing.T, node *privateserver.RabbitMQ) {
	t.Helper()
	s := newSiteOn(t, node.URL())
	topology := s.topology(t)
	q := s.queue(t, "q")
	p := s.publisher(t)
	fill(t, p, q, 10)
	ctl(t, node, "set_vm_memory_high_watermark", "0.00001")
	defer ctl(t, node, "set_vm_memory_high_watermark", "0.4")
	// More than fits in the socket buffers, so that writing hangs too.
	big := make([]broker.Publishing, 40)
	for i := range big {
		big[i] = broker.Publishing{Key: q, Body: make([]byte, 1<<20)}
	}
	refused := func(batch []broker.Publishing, within time.Duration) {
		t.Helper()
		start := time.Now()
		outcomes, err := p.PublishAll(t.Context(), batch)
		if !errors.Is(err, broker.ErrBlocked) || slices.Contains(outcomes, broker.Acked) {
			t.Errorf("during the alarm: %v, %v", outcomes, err)
		}
		if took := time.Since(start); took > within {
			t.Errorf("during the alarm, PublishAll took %s", took)
		}
	}
	refused(big, 5*time.Second)
	for range 20 {
		refused(messages(q, 10), time.Second)
	}

	// Consuming and declaring continue.
	in, err := s.subscriber(t).SubscribeQueue(t.Context(), q, 4)
	if err != nil {
		t.Fatal(err)
	}
	for range 10 {
		receive(t, in).Ack()
	}
	s.subscription(t, topology, "sub_1", "a")

	ctl(t, node, "set_vm_memory_high_watermark", "0.4")
	eventually(t, "publishing works again", func() bool {
		_, err := p.PublishAll(t.Context(), messages(q, 1))
		return err == nil
	})
	receive(t, in).Ack()
}

// testCrash publishes and consumes while the node is killed and started again, and checks that both
// continue by themselves. Watermill's suite has such a test too, TestReconnect; it passes, but not
// under the race detector, since the test itself has a race.
func testCrash(t *testing.T, node *privateserver.RabbitMQ) {
	t.Helper()
	s := newSiteOn(t, node.URL())
	s.topology(t)
	p, sub := s.publisher(t), s.subscriber(t)
	in, err := sub.Subscribe(t.Context(), "photo.*")
	if err != nil {
		t.Fatal(err)
	}
	const publishers, each = 20, 200
	got := make(chan string, 10*publishers*each)
	go func() {
		for m := range in {
			got <- m.UUID
			m.Ack()
		}
	}()
	var killed atomic.Bool
	var before, after sync.Map // the ids confirmed before the crash and after it
	// The node's start time does not count: patience begins when it has started.
	trying, giveUp := context.WithCancel(t.Context())
	defer giveUp()
	var wg sync.WaitGroup
	for w := range publishers {
		wg.Go(func() {
			for i := range each {
				// Mandatory, so that a message counts only if the queue exists again.
				m := []broker.Publishing{{
					Exchange: s.Events(events.DefaultAccount), Key: "photo.liked", Mandatory: true, ID: fmt.Sprint(w, "-", i),
				}}
				for {
					confirmed := &before
					if killed.Load() {
						confirmed = &after
					}
					_, err := p.PublishAll(trying, m)
					if err == nil {
						confirmed.Store(m[0].ID, true)
						break
					}
					select {
					case <-time.After(20 * time.Millisecond):
					case <-trying.Done():
						t.Errorf("publishing does not continue: %v", err)
						return
					}
				}
			}
		})
	}
	seen := map[string]bool{}
	for len(seen) < publishers*each/4 {
		seen[receive(t, got)] = true
	}
	if err := node.Kill(); err != nil {
		t.Fatal(err)
	}
	killed.Store(true)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	if err := node.Restart(ctx); err != nil {
		t.Fatal(err)
	}
	// RabbitMQ syncs no declaration to the disk, so a killed node may have forgotten the latest, or
	// some of them: a queue without its binding. They must be declared again, as the relay's
	// reconciler does.
	s.topology(t)
	if err := sub.SubscribeInitialize("photo.*"); err != nil {
		t.Fatal(err)
	}
	late := time.AfterFunc(patience, giveUp)
	defer late.Stop()
	wg.Wait()
	fromBefore, fromAfter := unseen(&before, seen), unseen(&after, seen)
	for over := time.After(patience); len(fromBefore)+len(fromAfter) > 0; {
		select {
		case id := <-got:
			delete(fromBefore, id)
			delete(fromAfter, id)
			continue
		case <-over:
		}
		break
	}
	if n := len(fromAfter); n > 0 {
		t.Errorf("%d messages that were confirmed after the crash did not arrive, %d wait in the queue",
			n, s.depthOnNewConnection(t, node.URL(), s.Namespace+"listen.default.photo.*"))
	}
	if n := len(fromBefore); n > 0 {
		// A killed node may break its promises; a sweeper publishes overdue messages again.
		t.Logf("the node has lost %d messages that it had confirmed before the crash", n)
	}
	// The node is removed with all its data, and the site's plain connection is dead.
	s.queues, s.exchanges = nil, nil
}

// depthOnNewConnection is depth over a new connection.
func (s *site) depthOnNewConnection(tb testing.TB, url, queue string) int {
	tb.Helper()
	conn, err := amqp.Dial(url)
	if err != nil {
		tb.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	return (&site{conn: conn}).depth(tb, queue)
}

// unseen returns the ids that are not in seen.
func unseen(ids *sync.Map, seen map[string]bool) map[any]bool {
	out := map[any]bool{}
	ids.Range(func(id, _ any) bool {
		if s, ok := id.(string); ok && !seen[s] {
			out[id] = true
		}
		return true
	})
	return out
}
