// Package process runs the parts of a program together and stops them in
// order.
//
// It promises to stop parts in the order in which they were added, and to drain
// each one before stopping the next: intake first, then the work in flight,
// then the connections that carry it. When a part fails, it stops the others in
// the same way and returns the error. A second signal ends the program at once.
package process

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
)

// Group is a set of parts. The zero value has none.
type Group struct {
	Logger *slog.Logger
	parts  []part
}

type part struct {
	name string
	run  func(ctx context.Context) error
}

// Add adds a part: run works until ctx ends and returns once it is drained.
func (g *Group) Add(name string, run func(ctx context.Context) error) {
	g.parts = append(g.parts, part{name, run})
}

// Close adds a step that runs once all parts added before have stopped.
func (g *Group) Close(name string, closer func() error) {
	g.Add(name, func(ctx context.Context) error {
		<-ctx.Done()
		return closer()
	})
}

// Run runs the parts until ctx ends or one of them returns, then stops all of
// them and returns their errors.
func (g *Group) Run(ctx context.Context) error {
	type ended struct {
		index int
		err   error
	}
	ends := make(chan ended, len(g.parts))
	stops := make([]context.CancelFunc, len(g.parts))
	dones := make([]chan struct{}, len(g.parts))
	for i, p := range g.parts {
		// Not a child of ctx: the order of stopping is ours.
		partCtx, stop := context.WithCancel(context.WithoutCancel(ctx))
		defer stop()
		stops[i], dones[i] = stop, make(chan struct{})
		go func() {
			defer close(dones[i])
			ends <- ended{i, p.run(partCtx)}
		}()
	}
	var failures []error
	fail := func(e ended) {
		if e.err != nil {
			failures = append(failures, fmt.Errorf("%s: %w", g.parts[e.index].name, e.err))
		}
	}
	left := len(g.parts)
	select {
	case <-ctx.Done():
	case e := <-ends:
		left--
		if e.err == nil {
			e.err = errors.New("stopped unexpectedly")
		}
		fail(e)
	}
	for i, stop := range stops {
		if g.Logger != nil {
			g.Logger.Debug("stopping", "part", g.parts[i].name)
		}
		stop()
		<-dones[i]
	}
	for range left {
		fail(<-ends)
	}
	return errors.Join(failures...)
}

// Signals returns a context that ends with SIGINT or SIGTERM. The second such
// signal ends the program at once.
func Signals(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		select {
		case <-signals:
			cancel()
		case <-ctx.Done():
		}
		// Restore the default action for an impatient user.
		signal.Stop(signals)
	}()
	return ctx, cancel
}
