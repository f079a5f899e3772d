package bench

import (
	"context"
	"slices"
	"time"
)

// backlog measures how a million waiting events are delivered once the relay
// and the deliveries start.
func backlog(ctx context.Context, r *Run) error {
	return r.withSystem(ctx, func(ctx context.Context, y *System) error {
		if err := y.subscribe(ctx, inFlight, "one"); err != nil {
			return err
		}
		if err := y.warm(ctx); err != nil {
			return err
		}
		if err := y.stop(ctx); err != nil {
			return err
		}
		if err := y.start(ctx, "api"); err != nil {
			return err
		}
		events := r.scale(1_000_000)
		if err := y.Expect(ctx, events); err != nil {
			return err
		}
		const size = 500 // the limit of a request's body
		out, err := batched(y.Addr, 8, events, size).Run(ctx)
		if err != nil {
			return err
		}
		r.add("taken in, in batches of 500", "events/s", out.Rate()*size, Goal{}, 0, "")
		if err := y.stop(ctx); err != nil {
			return err
		}
		if err := y.start(ctx, "run"); err != nil {
			return err
		}
		before, err := y.cpu()
		if err != nil {
			return err
		}
		if err := y.Await(ctx, events, patience); err != nil {
			return err
		}
		after, err := y.cpu()
		if err != nil {
			return err
		}
		arrived, err := y.Tally(ctx)
		if err != nil {
			return err
		}
		if err := arrived.Check(events); err != nil {
			return err
		}
		rates := rates(arrived, events)
		r.add("delivered, all", "events/s", float64(events)/arrived.Last.Sub(arrived.First).Seconds(), Goal{}, 0, "")
		r.add("delivered, slowest tenth", "events/s", slices.Min(rates), Goal{}, rates[0], "first tenth")
		r.add("delivered, last tenth", "events/s", rates[tenths-1], Goal{Share: 0.9}, rates[0], "first tenth")
		use, err := y.used(after.since(before), events)
		if err != nil {
			return err
		}
		r.use = &use
		r.add("peak memory of Posthorn", "MB", float64(use.Posthorn)/1e6, Goal{}, 0, "")
		return nil
	})
}

// rates are the deliveries a second in each tenth.
func rates(t *Tally, events int) []float64 {
	out := make([]float64, 0, tenths)
	from := t.First
	for _, mark := range t.Marks {
		out = append(out, float64(events/tenths)/max(mark.Sub(from), time.Microsecond).Seconds())
		from = mark
	}
	return out
}
