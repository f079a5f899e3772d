package groupcommit_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"posthorn/services/internal/groupcommit"
)

func start[In, Out any](t *testing.T, g *groupcommit.Group[In, Out]) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = g.Run(ctx)
	}()
	stop = func() { cancel(); <-done }
	t.Cleanup(stop)
	return stop
}

func TestWhatArrivesDuringAFlushSharesTheNext(t *testing.T) {
	t.Parallel()
	entered, release := make(chan struct{}), make(chan struct{})
	var mu sync.Mutex
	var sizes []int
	g := groupcommit.New(groupcommit.Config{}, func(_ context.Context, items []int) ([]int, error) {
		mu.Lock()
		sizes = append(sizes, len(items))
		first := len(sizes) == 1
		mu.Unlock()
		if first {
			close(entered)
			<-release
		}
		doubled := make([]int, len(items))
		for i, n := range items {
			doubled[i] = 2 * n
		}
		return doubled, nil
	})
	start(t, g)

	var callers sync.WaitGroup
	do := func(n int) {
		callers.Go(func() {
			if got, err := g.Do(t.Context(), n); err != nil || got != 2*n {
				t.Errorf("Do(%d) = %d, %v", n, got, err)
			}
		})
	}
	do(0)
	<-entered
	for n := 1; n <= 100; n++ {
		do(n)
	}
	for g.Waiting() < 100 {
		if t.Context().Err() != nil {
			t.Fatal("the callers did not arrive")
		}
	}
	close(release)
	callers.Wait()
	if diff := cmp.Diff([]int{1, 100}, sizes); diff != "" {
		t.Errorf("flush sizes (-want +got):\n%s", diff)
	}
}

func TestAFailedFlushFailsForEachOfItsItems(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	g := groupcommit.New(groupcommit.Config{MaxWait: time.Millisecond}, func(context.Context, []int) ([]int, error) {
		return nil, broken
	})
	start(t, g)
	var callers sync.WaitGroup
	for n := range 10 {
		callers.Go(func() {
			if _, err := g.Do(t.Context(), n); !errors.Is(err, broken) {
				t.Errorf("Do = %v, want %v", err, broken)
			}
		})
	}
	callers.Wait()
}

func TestStoppingFlushesWhatWasTakenInAndRefusesTheRest(t *testing.T) {
	t.Parallel()
	entered, release := make(chan struct{}), make(chan struct{})
	g := groupcommit.New(groupcommit.Config{MaxItems: 1}, func(_ context.Context, items []int) ([]int, error) {
		if items[0] == 0 {
			close(entered)
			<-release
		}
		return items, nil
	})
	ctx, cancel := context.WithCancel(t.Context())
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		_ = g.Run(ctx)
	}()

	results := make(chan error, 2)
	go func() { _, err := g.Do(t.Context(), 0); results <- err }()
	<-entered
	go func() { _, err := g.Do(t.Context(), 1); results <- err }()
	for g.Waiting() < 1 {
		if t.Context().Err() != nil {
			t.Fatal("the second caller did not arrive")
		}
	}
	cancel()
	close(release)
	<-stopped
	for range 2 {
		if err := <-results; err != nil {
			t.Errorf("Do of an item taken in = %v", err)
		}
	}
	if _, err := g.Do(t.Context(), 2); !errors.Is(err, groupcommit.ErrStopped) {
		t.Errorf("Do after Run = %v, want ErrStopped", err)
	}
}

func TestACallerThatLeavesDoesNotHoldUpTheOthers(t *testing.T) {
	t.Parallel()
	entered, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	g := groupcommit.New(groupcommit.Config{}, func(_ context.Context, items []int) ([]int, error) {
		once.Do(func() { close(entered); <-release })
		return items, nil
	})
	start(t, g)
	ctx, cancel := context.WithCancel(t.Context())
	left := make(chan error)
	go func() { _, err := g.Do(ctx, 1); left <- err }()
	<-entered
	cancel()
	if err := <-left; !errors.Is(err, context.Canceled) {
		t.Errorf("Do = %v, want context.Canceled", err)
	}
	close(release)
	if got, err := g.Do(t.Context(), 2); got != 2 || err != nil {
		t.Errorf("Do(2) = %d, %v", got, err)
	}
}
