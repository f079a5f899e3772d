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
	// unbounded is more requests than can be made in a timed load.
	unbounded = 1 << 30
)

// ingest is what the API takes in, with nobody subscribed.
func ingest(ctx context.Context, r *Run) error {
	rows, _, err := r.Inserts(ctx, 1, 0, rawSeconds)
	if err != nil {
		return err
	}
	batches, _, err := r.Inserts(ctx, batchSize, 0, rawSeconds)
	if err != nil {
		return err
	}
	return r.withSystem(ctx, func(ctx context.Context, y *System) error {
		if err := y.warm(ctx); err != nil {
			return err
		}
		for _, connections := range []int{16, 64} {
			out, err := r.timed(y.likes(connections, unbounded, 0)).Run(ctx)
			if err != nil {
				return err
			}
			goal := Goal{}
			if connections == 64 {
				goal.Share = 0.7
			}
			r.add(fmt.Sprintf("/like, %d connections", connections), "req/s", out.Rate(), goal, rows, "single-row inserts, 16 connections")
			if err := y.settle(ctx); err != nil {
				return err
			}
			if out, err = r.timed(single(y.Addr, connections, unbounded, 0)).Run(ctx); err != nil {
				return err
			}
			r.add(fmt.Sprintf("/events, %d connections", connections), "req/s", out.Rate(), Goal{}, rows, "single-row inserts, 16 connections")
			if err := y.settle(ctx); err != nil {
				return err
			}
		}
		out, err := r.timed(batched(y.Addr, 16, unbounded, batchSize)).Run(ctx)
		if err != nil {
			return err
		}
		r.add("/events in batches of 100, 16 connections", "events/s", out.Rate()*batchSize, Goal{}, batches, "inserts of 100 rows, 16 connections")
		return nil
	})
}

// timed is the load, ended after a few seconds.
func (r *Run) timed(l Load) Load {
	l.For = 5 * time.Second
	if r.quick {
		l.For /= 5
	}
	return l
}

// likes is a load of likes, each of another photo.
func (y *System) likes(connections, requests int, rate float64) Load {
	return Load{
		Addr: y.Addr, Connections: connections, Requests: requests, Rate: rate,
		PathOf: func(i int, start time.Time) string {
			return "/like/" + strconv.Itoa(i) + "-" + strconv.FormatInt(start.UnixNano(), 10)
		},
	}
}
