package broker_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"posthorn/services/internal/broker"
)

func TestPublishAllReportsEachMessage(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	q := s.queue(t, "q")
	p := s.publisher(t)
	batch := messages(q, 5)
	batch[1].Key = s.Namespace + "nowhere"
	batch[2].Key = s.Namespace + "nowhere"
	batch[2].Mandatory = false
	batch[3].Headers = map[string]string{strings.Repeat("x", 300): "v"}
	outcomes, err := p.PublishAll(t.Context(), batch)
	want := []broker.Outcome{broker.Acked, broker.Returned, broker.Acked, broker.Nacked, broker.Acked}
	if !slices.Equal(outcomes, want) {
		t.Errorf("outcomes are %v, want %v", outcomes, want)
	}
	for _, e := range []error{broker.ErrReturned, broker.ErrInvalid} {
		if !errors.Is(err, e) {
			t.Errorf("error %v does not say %v", err, e)
		}
	}
	if n := s.depth(t, q); n != 2 {
		t.Errorf("%d messages in the queue, want 2", n)
	}
}

func TestMandatoryMessageToNoQueueIsNeverPublished(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	p := s.publisher(t)
	// Concurrently and many times: the return and the confirm of a message race.
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			outcomes, err := p.PublishAll(t.Context(), messages(s.Namespace+"nowhere", 40))
			if !errors.Is(err, broker.ErrReturned) || slices.ContainsFunc(outcomes, func(o broker.Outcome) bool { return o != broker.Returned }) {
				t.Errorf("got %v, %v", outcomes, err)
			}
		})
	}
	wg.Wait()
}

func TestPublishAllToMissingExchangeFailsAndNextSucceeds(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	q := s.queue(t, "q")
	p := s.publisher(t)
	batch := messages(q, 3)
	batch[1].Exchange = s.Namespace + "missing"
	_, err := p.PublishAll(t.Context(), batch)
	if !errors.Is(err, broker.ErrNotFound) {
		t.Errorf("got %v, want ErrNotFound", err)
	}
	fill(t, p, q, 3)
}

func TestConfirmsArePipelined(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	q := s.queue(t, "q")
	p := s.publisher(t)
	fill(t, p, q, 1) // connected
	const n = 2000
	batch := messages(q, n)
	start := time.Now()
	if _, err := p.PublishAll(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	together := time.Since(start)
	start = time.Now()
	const few = n / 10
	for i := range few {
		if _, err := p.PublishAll(t.Context(), batch[i:i+1]); err != nil {
			t.Fatal(err)
		}
	}
	alone := time.Since(start) * n / few
	t.Logf("%d messages: pipelined %s, sequential %s", n, together, alone)
	if together > alone/2 {
		t.Errorf("%d messages took %s pipelined, %s sequential", n, together, alone)
	}
}

func TestPublisherKeepsOrder(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	q := s.queue(t, "q")
	p := s.publisher(t)
	batch := messages(q, 300)
	for i := range 3 {
		if _, err := p.PublishAll(t.Context(), batch[i*100:(i+1)*100]); err != nil {
			t.Fatal(err)
		}
	}
	ch := s.channel(t)
	for i := range batch {
		d, ok, err := ch.Get(q, true)
		if err != nil || !ok {
			t.Fatalf("message %d: %v, %v", i, ok, err)
		}
		if d.MessageId != batch[i].ID {
			t.Fatalf("message %d has the id %s", i, d.MessageId)
		}
	}
}

func TestPublishingSurvivesLostConnection(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	q := s.queue(t, "q")
	l, through := newProxy(t, s.cfg.URL)
	s.cfg.URL = through
	p := s.publisher(t)
	fill(t, p, q, 10)

	// Many publish while the connection is cut repeatedly. None hangs, and all acked messages are in
	// the queue.
	stop := make(chan struct{})
	var mu sync.Mutex
	acked := map[string]bool{}
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				batch := messages(q, 20)
				for j := range batch {
					batch[j].ID = strings.Join([]string{string(rune('a' + w)), time.Now().String(), batch[j].ID}, "-")
				}
				outcomes, _ := p.PublishAll(t.Context(), batch)
				mu.Lock()
				for j, o := range outcomes {
					if o == broker.Acked {
						acked[batch[j].ID] = true
					}
				}
				mu.Unlock()
			}
		})
	}
	count := func() int {
		mu.Lock()
		defer mu.Unlock()
		return len(acked)
	}
	for range 5 {
		n := count()
		eventually(t, "publishing goes on", func() bool { return count() > n+200 })
		l.Cut()
		mend(t, l)
	}
	close(stop)
	wg.Wait()
	ch := s.channel(t)
	for {
		d, ok, err := ch.Get(q, true)
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			break
		}
		delete(acked, d.MessageId)
	}
	if len(acked) > 0 {
		t.Errorf("%d messages were acked but are lost", len(acked))
	}
}

func TestPublisherClosesAfterLostConnection(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	q := s.queue(t, "q")
	l, through := newProxy(t, s.cfg.URL)
	s.cfg.URL = through
	p := s.publisher(t)
	fill(t, p, q, 1)
	l.Cut()
	for range 2 {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := p.PublishAll(t.Context(), messages(q, 1)); !errors.Is(err, broker.ErrClosed) {
		t.Errorf("publishing after Close: %v", err)
	}
}

func TestPublisherNeedsNoBrokerToStart(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	q := s.queue(t, "q")
	l, through := newProxy(t, s.cfg.URL)
	l.Cut()
	s.cfg.URL = through
	p := s.publisher(t)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	outcomes, err := p.PublishAll(ctx, messages(q, 2))
	if !errors.Is(err, broker.ErrUnavailable) || !slices.Equal(outcomes, make([]broker.Outcome, 2)) {
		t.Errorf("got %v, %v", outcomes, err)
	}
	mend(t, l)
	fill(t, p, q, 2)
}

func TestPublishAllEndsInTimeOnSilentConnection(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	q := s.queue(t, "q")
	l, through := newProxy(t, s.cfg.URL)
	s.cfg.URL = through
	s.cfg.PublishTimeout = 1500 * time.Millisecond
	p := s.publisher(t)
	fill(t, p, q, 1)
	l.Silence()
	// More than all buffers in between hold, so that writing hangs as well.
	big := make([]broker.Publishing, 60)
	for i := range big {
		big[i] = broker.Publishing{Key: q, Body: make([]byte, 1<<20)}
	}
	for _, batch := range [][]broker.Publishing{messages(q, 10), big} {
		start := time.Now()
		outcomes, err := p.PublishAll(t.Context(), batch)
		if took := time.Since(start); took > 3*time.Second {
			t.Errorf("took %s", took)
		}
		if !errors.Is(err, broker.ErrUnavailable) || slices.Contains(outcomes, broker.Acked) {
			t.Errorf("got %v, %v", outcomes, err)
		}
	}
	l.Heal()
	// The dead connection was closed, not waited for.
	eventually(t, "publishing works again", func() bool {
		_, err := p.PublishAll(t.Context(), messages(q, 1))
		return err == nil
	})
}

func TestABatchIsNotAbandonedWhileConfirmsArrive(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	q := s.queue(t, "q")
	l, through := newProxy(t, brokerURL(t))
	s.cfg.URL, s.cfg.PublishTimeout = through, time.Second
	p := s.publisher(t)
	fill(t, p, q, 1)
	l.Limit(50_000)
	batch := make([]broker.Publishing, 40)
	for i := range batch {
		batch[i] = broker.Publishing{Key: q, Mandatory: true, Body: make([]byte, 5<<10)}
	}
	start := time.Now()
	outcomes, err := p.PublishAll(t.Context(), batch)
	if err != nil || slices.ContainsFunc(outcomes, func(o broker.Outcome) bool { return o != broker.Acked }) {
		t.Errorf("PublishAll = %v, %v", outcomes, err)
	}
	if took := time.Since(start); took < 2*s.cfg.PublishTimeout {
		t.Errorf("PublishAll took %v, too short to show anything", took)
	}
}

func TestAMessageToManyQueuesHasALongerTimeout(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	q := s.queue(t, "q")
	l, through := newProxy(t, brokerURL(t))
	s.cfg.URL, s.cfg.PublishTimeout = through, time.Second
	p := s.publisher(t)
	fill(t, p, q, 1)
	l.Limit(20_000) // so that one message takes three seconds
	m := []broker.Publishing{{Key: q, Mandatory: true, Queues: 1000, Body: make([]byte, 60<<10)}}
	if _, err := p.PublishAll(t.Context(), m); err != nil {
		t.Errorf("for 1,000 queues: %v", err)
	}
	m[0].Queues = 0
	if _, err := p.PublishAll(t.Context(), m); !errors.Is(err, broker.ErrUnavailable) {
		t.Errorf("for one queue: %v, want ErrUnavailable", err)
	}
}
