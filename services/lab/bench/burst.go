package bench

import (
	"context"
	"time"
)

// patience is how long a run waits without an arrival before it is given up.
const patience = 20 * time.Second

// inFlight is the maxInFlight of a single subscription.
const inFlight = 64

// burst sends 50,000 events at once to one subscription.
func burst(load func(addr string, events int) Load) func(ctx context.Context, r *Run) error {
	return func(ctx context.Context, r *Run) error {
		events := r.scale(50_000)
		raw, err := PassThrough(ctx, r.RabbitMQ.URL(), events)
		if err != nil {
			return err
		}
		posts, err := r.Posts(ctx, inFlight, events)
		if err != nil {
			return err
		}
		return r.withSystem(ctx, func(ctx context.Context, y *System) error {
			if err := y.subscribe(ctx, inFlight, "one"); err != nil {
				return err
			}
			if err := y.warm(ctx); err != nil {
				return err
			}
			m, err := r.measure(ctx, y, events, events, load(y.Addr, events).Run)
			if err != nil {
				return err
			}
			again, err := PassThrough(ctx, r.RabbitMQ.URL(), events)
			if err != nil {
				return err
			}
			// A limit is an upper bound, so take the better of before and after.
			r.add("delivered", "events/s", m.rate, Goal{AtLeast: 5000, Share: 0.4}, max(raw, again), "published and consumed")
			r.add("limit: plain POSTs to the receiver, 64 connections", "req/s", posts, Goal{}, 0, "")
			r.addUse(m)
			r.add("peak memory of Posthorn", "MB", float64(m.use.Posthorn)/1e6, Goal{Below: 150}, 0, "")
			return nil
		})
	}
}
