package broker_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"posthorn/services/internal/broker"
)

// run runs consumers until the test or the returned function ends them.
func run(tb testing.TB, c *broker.Consumers) (stop func()) {
	tb.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(tb.Context()))
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	var stopped atomic.Bool
	stop = func() {
		cancel()
		if stopped.Swap(true) {
			return
		}
		select {
		case err := <-done:
			if err != nil {
				tb.Errorf("Run: %v", err)
			}
		case <-time.After(patience):
			tb.Error("Run does not end")
		}
	}
	tb.Cleanup(stop)
	return stop
}

func (s *site) consumers(tb testing.TB) *broker.Consumers {
	tb.Helper()
	c, err := broker.NewConsumers(s.cfg)
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

func TestConsumersRunHandlerOfEachQueue(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	p, c := s.publisher(t), s.consumers(t)
	got := make(chan string, 100)
	add := func(name string) string {
		q := s.queue(t, name)
		fill(t, p, q, 3)
		if err := c.Add(q, 2, func(_ context.Context, d broker.Message) error {
			got <- name + d.ID
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		return q
	}
	before := add("a")
	stop := run(t, c)
	add("b")
	seen := map[string]int{}
	for range 6 {
		seen[receive(t, got)]++
	}
	for _, k := range []string{"a0", "a1", "a2", "b0", "b1", "b2"} {
		if seen[k] != 1 {
			t.Errorf("%s came %d times", k, seen[k])
		}
	}
	if err := c.Add(before, 1, nil); !errors.Is(err, broker.ErrAdded) {
		t.Errorf("adding a queue twice: %v", err)
	}
	stop()
	if err := c.Add(s.Namespace+"late", 1, nil); !errors.Is(err, broker.ErrClosed) {
		t.Errorf("adding after the end: %v", err)
	}
}

func TestConsumersKeepTheirPrefetchAndDoNotDelayOneAnother(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	p, c := s.publisher(t), s.consumers(t)
	slow, fast := s.queue(t, "slow"), s.queue(t, "fast")
	fill(t, p, slow, 50)
	release := make(chan struct{})
	var atOnce, most atomic.Int32
	started := make(chan struct{}, 50)
	if err := c.Add(slow, 5, func(context.Context, broker.Message) error {
		n := atOnce.Add(1)
		defer atOnce.Add(-1)
		for {
			if m := most.Load(); n <= m || most.CompareAndSwap(m, n) {
				break
			}
		}
		started <- struct{}{}
		<-release
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	got := make(chan string, 200)
	if err := c.Add(fast, 5, func(_ context.Context, d broker.Message) error {
		got <- d.ID
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	run(t, c)
	for range 5 {
		receive(t, started)
	}
	fill(t, p, fast, 200)
	for range 200 {
		receive(t, got)
	}
	close(release)
	for range 45 {
		receive(t, started)
	}
	if n := most.Load(); n != 5 {
		t.Errorf("%d messages at once, want 5", n)
	}
}

func TestFailedAndPanickingHandlersGetTheirMessageAgain(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	q := s.queue(t, "q")
	c := s.consumers(t)
	fill(t, s.publisher(t), q, 1)
	tries := make(chan broker.Message, 10)
	var n atomic.Int32
	if err := c.Add(q, 1, func(_ context.Context, d broker.Message) error {
		tries <- d
		switch n.Add(1) {
		case 1:
			return errors.New("failed")
		case 2:
			panic("on purpose")
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	stop := run(t, c)
	for i := range 3 {
		if d := receive(t, tries); d.Redelivered != (i > 0) || string(d.Body) != "{}" || d.Key != q || d.ContentType != "application/json" {
			t.Errorf("attempt %d got %+v", i, d)
		}
	}
	if took := time.Since(start); took < 2*s.cfg.RequeuePause {
		t.Errorf("three attempts within %s: no pause between them", took)
	}
	stop()
	if n := s.depth(t, q); n != 0 {
		t.Errorf("%d messages left", n)
	}
}

func TestRunDrainsBeforeItReturns(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	q := s.queue(t, "q")
	c := s.consumers(t)
	fill(t, s.publisher(t), q, 30)
	started, release := make(chan struct{}, 30), make(chan struct{})
	var finished atomic.Int32
	if err := c.Add(q, 10, func(ctx context.Context, _ broker.Message) error {
		started <- struct{}{}
		<-release
		finished.Add(1)
		return ctx.Err()
	}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	for range 10 {
		receive(t, started)
	}
	cancel()
	select {
	case err := <-done:
		t.Fatalf("Run returned while handlers work: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	close(release)
	if err := receive(t, done); err != nil {
		t.Error(err)
	}
	if n := finished.Load(); n != 10 {
		t.Errorf("%d handlers finished, want 10", n)
	}
	// The acknowledgements were sent before the connection closed, and the other messages are
	// unchanged.
	ch := s.channel(t)
	for range 20 {
		d, ok, err := ch.Get(q, true)
		if err != nil || !ok {
			t.Fatalf("a message is missing: %v", err)
		}
		if d.MessageId < "10" && len(d.MessageId) == 1 {
			t.Errorf("message %s was acked but is still in the queue", d.MessageId)
		}
	}
	if n := s.depth(t, q); n != 0 {
		t.Errorf("%d messages too many", n)
	}
}

func TestRemoveDrainsOneQueueOnly(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	p, c := s.publisher(t), s.consumers(t)
	gone, stays := s.queue(t, "gone"), s.queue(t, "stays")
	started, release := make(chan struct{}, 10), make(chan struct{})
	if err := c.Add(gone, 1, func(ctx context.Context, _ broker.Message) error {
		started <- struct{}{}
		<-release
		return ctx.Err()
	}); err != nil {
		t.Fatal(err)
	}
	got := make(chan string, 10)
	if err := c.Add(stays, 1, func(_ context.Context, d broker.Message) error {
		got <- d.ID
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	run(t, c)
	fill(t, p, gone, 3)
	receive(t, started)
	short, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := c.Remove(short, gone); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Remove returned while the handler works: %v", err)
	}
	close(release)
	if err := c.Remove(t.Context(), gone); err != nil {
		t.Fatal(err)
	}
	if n := s.depth(t, gone); n != 2 {
		t.Errorf("%d messages left, want 2", n)
	}
	fill(t, p, stays, 1)
	receive(t, got)
	// Add it again.
	again := make(chan string, 10)
	if err := c.Add(gone, 1, func(_ context.Context, d broker.Message) error {
		again <- d.ID
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	receive(t, again)
	receive(t, again)
}

func TestTenThousandQueuesAreAddedCheaply(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	c := s.consumers(t)
	nothing := func(context.Context, broker.Message) error { return nil }
	queue, began := s.queue(t, "real"), make(chan string, 1)
	fill(t, s.publisher(t), queue, 1)
	if err := c.Add(queue, 1, func(_ context.Context, d broker.Message) error {
		began <- d.ID
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	run(t, c)
	receive(t, began)
	const n = 10_000
	start := time.Now()
	for i := range n {
		if err := c.Add(fmt.Sprint(s.Namespace, "absent-", i), 8, nothing); err != nil {
			t.Fatal(err)
		}
	}
	took := time.Since(start)
	t.Logf("%d queues added in %s", n, took)
	// All of them look for their queue meanwhile. On an idle machine it takes 0.2 s, with the race
	// detector 1.3 s.
	if took > 20*time.Second {
		t.Errorf("adding %d queues took %s", n, took)
	}
	start = time.Now()
	if err := c.Remove(t.Context(), s.Namespace+"absent-77"); err != nil {
		t.Fatal(err)
	}
	t.Logf("one removed in %s", time.Since(start))
}

// Not parallel: it counts all goroutines.
//
//nolint:paralleltest // see above
func TestNothingIsLeftRunningAfterLostConnectionsAndClose(t *testing.T) {
	s := newSite(t)
	q := s.queue(t, "q")
	l, through := newProxy(t, s.cfg.URL)
	s.cfg.URL = through
	p, c, sub := s.publisher(t), s.consumers(t), s.subscriber(t)
	got := make(chan string, 100)
	if err := c.Add(q, 4, func(_ context.Context, d broker.Message) error {
		got <- d.ID
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	before := runtime.NumGoroutine()
	stop := run(t, c)
	other := s.queue(t, "other")
	in, err := sub.SubscribeQueue(t.Context(), other, 1)
	if err != nil {
		t.Fatal(err)
	}
	work := func() {
		t.Helper()
		eventually(t, "messages are published", func() bool {
			_, err := p.PublishAll(t.Context(), append(messages(q, 1), messages(other, 1)...))
			return err == nil
		})
		receive(t, got)
		receive(t, in).Ack()
	}
	work()
	running := runtime.NumGoroutine()
	for range 10 {
		l.Cut()
		mend(t, l)
		work()
	}
	eventually(t, "goroutines are as few as before the cuts", func() bool { return runtime.NumGoroutine() <= running+2 })
	stop()
	_ = sub.Close()
	_ = p.Close()
	eventually(t, "goroutines end", func() bool { return runtime.NumGoroutine() <= before })
}

func TestAWiderQueueHasMoreMessagesInFlightUntilItIsNarrowed(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	p, c := s.publisher(t), s.consumers(t)
	queue := s.queue(t, "wide")
	fill(t, p, queue, 60)
	var atOnce atomic.Int32
	release := make(chan struct{})
	done := make(chan string, 200)
	if err := c.Add(queue, 5, func(_ context.Context, m broker.Message) error {
		atOnce.Add(1)
		<-release
		atOnce.Add(-1)
		done <- m.ID
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	stop := run(t, c)
	for _, step := range []struct{ further, want int32 }{{0, 5}, {7, 12}, {20, 25}} {
		c.Widen(queue, int(step.further))
		eventually(t, "as many are in flight as may be", func() bool { return atOnce.Load() == step.want })
	}
	// The second consumer's messages are finished, and it gets no more.
	c.Widen(queue, 0)
	ch := s.channel(t)
	eventually(t, "the second consumer ends", func() bool {
		q, err := ch.QueueDeclarePassive(queue, true, false, false, false, nil)
		return err == nil && q.Consumers == 1
	})
	for range 25 {
		release <- struct{}{}
		receive(t, done)
	}
	eventually(t, "the prefetch is what it was", func() bool { return atOnce.Load() == 5 })
	close(release)
	for range 35 {
		receive(t, done)
	}
	c.Widen(queue, 10)
	c.Widen(s.Namespace+"unknown", 10)
	stop()
	c.Widen(queue, 20) // ignored
}

func TestTheMemoryOfTheBrokerIsOneMessage(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	topology, p := s.topology(t), s.publisher(t)
	s.sweep(s.Memory())
	remembers := func() bool {
		t.Helper()
		got, err := topology.Remembers(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	for range 2 {
		if remembers() {
			t.Error("it remembers before Memorize")
		}
	}
	for range 3 {
		if err := p.Memorize(t.Context()); err != nil {
			t.Fatal(err)
		}
		if !remembers() {
			t.Error("it has forgotten after Memorize")
		}
	}
	if n, _, _, err := topology.Depth(t.Context(), s.Memory()); err != nil || n != 1 {
		t.Errorf("%d messages, %v", n, err)
	}
	if err := topology.DeleteQueue(t.Context(), s.Memory()); err != nil {
		t.Fatal(err)
	}
	if remembers() {
		t.Error("it remembers although the queue was deleted")
	}
}
