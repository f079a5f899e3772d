package bench

import (
	"context"
	"time"
)

// patience is how long nothing may arrive before a run is given up.
const patience = 20 * time.Second

// inFlight is the maxInFlight of a subscription that stands alone.
const inFlight = 64

// burst is 50,000 events at once, in batches, for one subscription.
func burst(ctx context.Context, r *Run) error {
	raw, err := PassThrough(ctx, r.RabbitMQ.URL(), r.scale(50_000))
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
		events := r.scale(50_000)
		measured, err := r.measure(ctx, y, events, events, func(ctx context.Context) (*Outcome, error) {
			return batched(y.Addr, 4, events, batchSize).Run(ctx)
		})
		if err != nil {
			return err
		}
		r.add("delivered", "events/s", measured.rate, Goal{AtLeast: 5000, Share: 0.4}, raw, "published and consumed")
		r.addCPU(measured)
		r.add("peak memory of Posthorn", "MB", float64(measured.peak)/1e6, Goal{Below: 150}, 0, "")
		return nil
	})
}
