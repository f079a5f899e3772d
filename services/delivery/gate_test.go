package delivery

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"posthorn/services/internal/subscription"
)

// enterSoon enters without waiting.
func enterSoon(t *testing.T, g *gate, host, id string) pass {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	p, err := g.enter(ctx, host, subscription.ID(id), nil)
	if err != nil {
		t.Fatalf("%s at %s must wait: %v", id, host, err)
	}
	return p
}

func limit(g *gate) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.limit
}

// crowd makes subscriptions of one host request far more than the capacity.
func crowd(ctx context.Context, g *gate, subscriptions, each int) {
	for i := range subscriptions {
		for range each {
			go func() { _, _ = g.enter(ctx, "hangs.example", subscription.ID(fmt.Sprintf("sub-%d", i)), nil) }()
		}
	}
}

func TestAHostThatHangsLeavesRoomForOthers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const capacity = 32
		g := newGate(capacity, func(bool) {})
		ctx, stop := context.WithCancel(t.Context())
		crowd(ctx, g, 20, 256)
		synctest.Wait()
		if n, waiting := g.counts(); n > 2*capacity/3+1 || n < capacity/2 || n+waiting != 20*256 {
			t.Errorf("%d in flight and %d waiting, want two thirds of %d in flight at most", n, waiting, capacity)
		}
		// Repeatedly, and without waiting.
		for range 100 {
			g.exit(enterSoon(t, g, "innocent.example", "sub-good"))
		}
		stop()
		synctest.Wait()
		if _, waiting := g.counts(); waiting != 0 {
			t.Errorf("%d are waiting after they have given up", waiting)
		}
	})
}

func TestSlowHostsTogetherLeaveAQuarter(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const capacity = 32
		g := newGate(capacity, func(bool) {})
		for i := range 200 { // each is known to be slow, then takes all it can get
			host := fmt.Sprintf("slow-%d.example", i)
			p := enterSoon(t, g, host, "sub")
			<-time.After(slowAfter)
			g.exit(p)
		}
		ctx, stop := context.WithCancel(t.Context())
		for i := range 200 {
			go func() { _, _ = g.enter(ctx, fmt.Sprintf("slow-%d.example", i), "sub", nil) }()
		}
		synctest.Wait()
		if n, _ := g.counts(); n != capacity-capacity/4 {
			t.Errorf("%d in flight to slow hosts, want three quarters of %d", n, capacity)
		}
		g.exit(enterSoon(t, g, "innocent.example", "sub-good"))
		stop()
	})
}

func TestTheGatePausesAfterAShortageAndThenGrows(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var told []bool
		g := newGate(16, func(short bool) { told = append(told, short) })
		passes := make([]pass, 0, 8)
		for i := range 8 {
			passes = append(passes, enterSoon(t, g, fmt.Sprintf("h%d", i), "s"))
		}
		g.short()
		g.short() // the requests in flight fail together and count once
		for _, p := range passes {
			g.exit(p)
		}
		entered := make(chan time.Duration)
		begun := time.Now()
		go func() {
			p, err := g.enter(t.Context(), "h", "s", nil)
			if err != nil {
				t.Error(err)
			}
			g.exit(p)
			entered <- time.Since(begun)
		}()
		if waited := <-entered; waited != firstPause {
			t.Errorf("waited %v, want %v", waited, firstPause)
		}
		if n := limit(g); n != 4 {
			t.Errorf("a limit of %d after the shortage, want half of what was in flight", n)
		}
		<-time.After(3 * growEvery)
		synctest.Wait()
		if limit(g) != 16 || len(told) != 2 || !told[0] || told[1] {
			t.Errorf("limit %d, told %v, want all of 16 again, and the start and end of the shortage", limit(g), told)
		}
		g.close()
	})
}

func TestAStoppedRequestLeavesTheQueue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newGate(1, func(bool) {})
		first := enterSoon(t, g, "a", "s1")
		stopping, ended := make(chan struct{}), make(chan error)
		go func() {
			_, err := g.enter(t.Context(), "b", "s2", stopping)
			ended <- err
		}()
		synctest.Wait()
		close(stopping)
		if err := <-ended; !errors.Is(err, errGiveBack) {
			t.Errorf("%v, want errGiveBack", err)
		}
		g.exit(first)
		g.exit(enterSoon(t, g, "c", "s3"))
		if len(g.hosts) != 0 || len(g.queue) != 0 {
			t.Errorf("%d hosts and %d in the queue are kept", len(g.hosts), len(g.queue))
		}
	})
}
