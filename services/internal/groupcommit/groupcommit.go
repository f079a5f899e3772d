// Package groupcommit lets concurrent callers share one costly step, such as a
// commit: items that arrive during a flush go into the next one.
//
// It promises that every item is flushed at most once, that Do returns only
// after the flush of its item has returned, and that a flush has its items in
// the order of arrival. Under light load an item is flushed at once, alone. A
// failed flush fails for all of its items; the item of a caller that gives up
// is still flushed.
package groupcommit

import (
	"cmp"
	"context"
	"errors"
	"sync"
	"time"
)

// ErrStopped is returned by Do when Run has returned or is draining.
var ErrStopped = errors.New("group commit is stopped")

// Config of a Group. The zero value flushes up to 1,000 items at once, one
// flush at a time, without waiting for others.
type Config struct {
	// MaxItems in one flush. Default 1,000.
	MaxItems int
	// MaxWait holds an item back for others to join it. Default 0.
	MaxWait time.Duration
	// Flushes that may run at once. Default 1; with more, items of different
	// flushes may be finished in any order.
	Flushes int
}

// Group batches items of type In and returns an Out for each.
type Group[In, Out any] struct {
	cfg   Config
	flush func(ctx context.Context, items []In) ([]Out, error)
	calls chan *call[In, Out]
	// stopped: no more items are accepted; drained: no more are flushed.
	stopped, drained chan struct{}
}

type call[In, Out any] struct {
	in   In
	out  Out
	err  error
	done chan struct{}
}

// New returns a Group whose flush gets at least one and at most MaxItems
// items and returns one result for each, in the same order. The context that
// flush gets is not cancelled by stopping the group.
func New[In, Out any](cfg Config, flush func(ctx context.Context, items []In) ([]Out, error)) *Group[In, Out] {
	cfg.MaxItems, cfg.Flushes = cmp.Or(cfg.MaxItems, 1000), cmp.Or(cfg.Flushes, 1)
	return &Group[In, Out]{
		cfg: cfg, flush: flush,
		calls:   make(chan *call[In, Out], cfg.MaxItems),
		stopped: make(chan struct{}), drained: make(chan struct{}),
	}
}

// Do flushes the item with others and returns its result. If ctx ends first, Do
// returns its error and the item may still be flushed.
func (g *Group[In, Out]) Do(ctx context.Context, in In) (Out, error) {
	var none Out
	c := &call[In, Out]{in: in, done: make(chan struct{})}
	select {
	case <-g.stopped:
		return none, ErrStopped
	default:
	}
	select {
	case g.calls <- c:
	case <-g.stopped:
		return none, ErrStopped
	case <-ctx.Done():
		return none, ctx.Err()
	}
	select {
	case <-c.done:
		return c.out, c.err
	case <-ctx.Done():
		return none, ctx.Err()
	case <-g.drained:
		// The item arrived while Run was returning: it was flushed at the last
		// moment, or never will be.
		select {
		case <-c.done:
			return c.out, c.err
		default:
			return none, ErrStopped
		}
	}
}

// Run flushes until ctx ends, then flushes the accepted items and returns. Call
// it once.
func (g *Group[In, Out]) Run(ctx context.Context) error {
	defer close(g.drained)
	var workers sync.WaitGroup
	for range g.cfg.Flushes {
		workers.Go(func() {
			for {
				select {
				case first := <-g.calls:
					g.one(ctx, first)
				case <-ctx.Done():
					return
				}
			}
		})
	}
	<-ctx.Done()
	close(g.stopped)
	workers.Wait()
	for {
		select {
		case first := <-g.calls:
			g.one(ctx, first)
		default:
			return nil
		}
	}
}

func (g *Group[In, Out]) one(ctx context.Context, first *call[In, Out]) {
	calls := g.gather(ctx, first)
	items := make([]In, len(calls))
	for i, c := range calls {
		items[i] = c.in
	}
	outs, err := g.flush(context.WithoutCancel(ctx), items)
	if err == nil && len(outs) != len(items) {
		err = errors.New("flush returned a wrong number of results")
	}
	for i, c := range calls {
		if err != nil {
			c.err = err
		} else {
			c.out = outs[i]
		}
		close(c.done)
	}
}

func (g *Group[In, Out]) gather(ctx context.Context, first *call[In, Out]) []*call[In, Out] {
	calls := []*call[In, Out]{first}
	var wait <-chan time.Time
	if g.cfg.MaxWait > 0 {
		timer := time.NewTimer(g.cfg.MaxWait)
		defer timer.Stop()
		wait = timer.C
	}
	for len(calls) < g.cfg.MaxItems {
		select {
		case c := <-g.calls:
			calls = append(calls, c)
			continue
		default:
		}
		if wait == nil {
			return calls
		}
		select {
		case c := <-g.calls:
			calls = append(calls, c)
		case <-wait:
			return calls
		case <-ctx.Done():
			return calls
		}
	}
	return calls
}

// Waiting is the number of items that no flush has taken yet.
func (g *Group[In, Out]) Waiting() int { return len(g.calls) }
