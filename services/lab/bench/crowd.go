package bench

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"posthorn/services/lab/site"
)

// Each of the crowd's subscriptions wants a type of its own, and one that all
// want.
const (
	crowdType = "bench.crowd"
	ownType   = "bench.own."
)

// crowd measures a system with many subscriptions.
func crowd(subscriptions int) func(ctx context.Context, r *Run) error {
	return func(ctx context.Context, r *Run) error {
		n := r.scale(subscriptions)
		return r.withSystem(ctx, func(ctx context.Context, y *System) error {
			if err := y.subscribe(ctx, inFlight, "one"); err != nil {
				return err
			}
			if err := y.warm(ctx); err != nil {
				return err
			}
			alone, err := r.own(ctx, y, func(int) string { return eventType })
			if err != nil {
				return err
			}
			if err := r.gather(ctx, y, n); err != nil {
				return err
			}
			if err := r.again(ctx, y, n); err != nil {
				return err
			}
			m, err := r.own(ctx, y, func(i int) string { return ownType + strconv.Itoa(i%n) })
			if err != nil {
				return err
			}
			r.addLatency("request to receiver at 200 a second", &m.arrived.Latency, &alone.arrived.Latency, "with one subscription",
				map[string]Goal{"p99": {Times: 3}})
			l := single(y.Addr, 1, 1, 0)
			l.Body = func(dst []byte, i int, start time.Time) []byte { return appendEvent(dst, crowdType, i, start) }
			took, err := r.reach(ctx, y, l, n, time.Now())
			if err != nil {
				return err
			}
			r.add("from one POST /events until all have got that event", "s", took.Seconds(), Goal{}, 0, "")
			files, err := site.FilesOf(y.process.PID())
			if err != nil {
				return err
			}
			r.add("peak memory of Posthorn", "MB", float64(m.use.Posthorn)/1e6, Goal{}, 0, "")
			r.add("peak memory of RabbitMQ", "MB", float64(m.use.RabbitMQ)/1e6, Goal{}, 0, "")
			r.add("open files of Posthorn", "", float64(files), Goal{}, 0, "")
			return nil
		})
	}
}

// own sends events at 200 a second, each for one subscription.
func (r *Run) own(ctx context.Context, y *System, typeOf func(i int) string) (*measured, error) {
	const rate = 200
	events := rate * max(r.scale(pacedSeconds), 3)
	return r.measure(ctx, y, events, events, func(ctx context.Context) (*Outcome, error) {
		l := single(y.Addr, 64, events, rate)
		l.Body = func(dst []byte, i int, start time.Time) []byte { return appendEvent(dst, typeOf(i), i, start) }
		return l.Run(ctx)
	})
}

// gather creates the subscriptions through the API.
func (r *Run) gather(ctx context.Context, y *System, n int) error {
	out, err := Load{
		Addr: y.Addr, Path: "/subscription", Connections: 8, Requests: n,
		Body: func(dst []byte, i int, _ time.Time) []byte {
			return y.appendSubscription(dst, fmt.Sprint("s", i), crowdType, ownType+strconv.Itoa(i))
		},
	}.Run(ctx)
	if err != nil {
		return err
	}
	y.subscribed += n
	r.add("subscriptions made through the API", "/s", out.Rate(), Goal{}, 0, "")
	took, err := r.reachAll(ctx, y, n, out.Begun)
	r.add("from the first POST /subscription until each has got an event of its own", "s", took.Seconds(), Goal{}, 0, "")
	return err
}

// again restarts Posthorn.
func (r *Run) again(ctx context.Context, y *System, n int) error {
	if err := y.stop(ctx); err != nil {
		return err
	}
	begun := time.Now()
	if err := y.start(ctx, "run"); err != nil {
		return err
	}
	r.add("ready after a restart", "s", time.Since(begun).Seconds(), Goal{Below: 60}, 0, "")
	took, err := r.reachAll(ctx, y, n, begun)
	r.add("from the restart until each has got an event of its own", "s", took.Seconds(), Goal{Below: 60}, 0, "")
	return err
}

// reachAll sends each subscription an event of its own, and returns the time
// from since to the last arrival.
func (r *Run) reachAll(ctx context.Context, y *System, n int, since time.Time) (time.Duration, error) {
	l := single(y.Addr, 8, n, 0)
	l.Body = func(dst []byte, i int, start time.Time) []byte {
		return appendEvent(dst, ownType+strconv.Itoa(i), i, start)
	}
	return r.reach(ctx, y, l, n, since)
}

// reach sends events that arrive n times, and returns the time from since to
// the last arrival.
func (r *Run) reach(ctx context.Context, y *System, l Load, n int, since time.Time) (time.Duration, error) {
	if err := y.Expect(ctx, l.Requests); err != nil {
		return 0, err
	}
	if _, err := l.Run(ctx); err != nil {
		return 0, err
	}
	// A node with thousands of queues can be busy for a while.
	if err := y.Await(ctx, n, 6*patience); err != nil {
		return 0, err
	}
	arrived, err := y.Tally(ctx)
	if err != nil {
		return 0, err
	}
	return arrived.Last.Sub(since), arrived.Check(n)
}
