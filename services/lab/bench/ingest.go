package bench

import (
	"context"
	"fmt"
	"strconv"
	"time"
)

const (
	// rawSeconds is how long each of the raw runs takes.
	rawSeconds = 4
	// unbounded is more requests than a timed load can make.
	unbounded = 1 << 30
)

// ingest measures how many events the API accepts, without subscriptions.
func ingest(ctx context.Context, r *Run) error {
	before, err := r.insertLimits(ctx)
	if err != nil {
		return err
	}
	var figures []Figure
	err = r.withSystem(ctx, func(ctx context.Context, y *System) error {
		if err := y.warm(ctx); err != nil {
			return err
		}
		for _, connections := range []int{16, 64} {
			var asked Goal
			if connections == 64 {
				asked.Share = 0.7
			}
			for _, l := range []struct {
				name string
				load Load
				goal Goal
			}{
				{"/like", y.likes(connections, unbounded, 0), asked},
				{"/events", single(y.Addr, connections, unbounded, 0), Goal{}},
			} {
				out, err := r.timed(l.load).Run(ctx)
				if err != nil {
					return err
				}
				figures = append(figures, Figure{Name: fmt.Sprintf("%s, %d connections", l.name, connections), Value: out.Rate(), Goal: l.goal})
				if err := y.settle(ctx); err != nil {
					return err
				}
			}
		}
		out, err := r.timed(batched(y.Addr, 16, unbounded, batchSize)).Run(ctx)
		if err != nil {
			return err
		}
		figures = append(figures, Figure{Name: "/events in batches of 100, 16 connections", Value: out.Rate() * batchSize})
		return nil
	})
	if err != nil {
		return err
	}
	after, err := r.insertLimits(ctx)
	if err != nil {
		return err
	}
	last := len(figures) - 1
	for _, f := range figures[:last] {
		r.add(f.Name, "req/s", f.Value, f.Goal, max(before.single, after.single), "single-row inserts, 16 connections")
	}
	r.add(figures[last].Name, "events/s", figures[last].Value, Goal{}, max(before.batched, after.batched), "inserts of 100 rows, 16 connections")
	return nil
}

type insertLimits struct{ single, batched float64 }

// insertLimits measures Postgres alone. It is measured before and after: a
// limit is an upper bound, so the better counts.
func (r *Run) insertLimits(ctx context.Context) (l insertLimits, err error) {
	if l.single, _, err = r.Inserts(ctx, 1, 0, rawSeconds); err != nil {
		return l, err
	}
	l.batched, _, err = r.Inserts(ctx, batchSize, 0, rawSeconds)
	return l, err
}

// timed returns the load, ended after a few seconds.
func (r *Run) timed(l Load) Load {
	l.For = 5 * time.Second
	if r.quick {
		l.For /= 5
	}
	return l
}

// likes is a load of likes, each of a different photo.
func (y *System) likes(connections, requests int, rate float64) Load {
	return Load{
		Addr: y.Addr, Connections: connections, Requests: requests, Rate: rate,
		PathOf: func(i int, start time.Time) string {
			return "/like/" + strconv.Itoa(i) + "-" + strconv.FormatInt(start.UnixNano(), 10)
		},
	}
}
