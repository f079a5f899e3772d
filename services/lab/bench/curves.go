package bench

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"posthorn/services/internal/postgres"
)

// The series of the curves.
const (
	deliveredSeries = "delivered"
	cpuSeries       = "CPU per delivery"
	ingestSeries    = "accepted by the API"
)

// point adds a figure as a point of a curve.
func (r *Run) point(series, at string, x float64, unit string, value float64) {
	r.add(series+", "+at, unit, value, Goal{}, 0, "")
	last := &r.figures[len(r.figures)-1]
	last.Series, last.X = series, x
}

// overSubscriptions measures the same number of deliveries to increasing numbers
// of subscriptions that all match every event.
func overSubscriptions(ctx context.Context, r *Run) error {
	for _, n := range []int{1, 10, 100, 1000, 10_000} {
		if r.quick && n > 1000 {
			break
		}
		err := r.withSystem(ctx, func(ctx context.Context, y *System) error {
			l := Load{Addr: y.Addr, Path: "/subscription", Connections: 8, Requests: n, Body: y.subscriptionBody(eventType)}
			if _, err := l.Run(ctx); err != nil {
				return err
			}
			y.subscribed = n
			warm := max(500/n, 1)
			if err := y.warmWith(ctx, warm, single(y.Addr, 1, warm, 0)); err != nil {
				return err
			}
			events := max(r.scale(50_000)/n, 2)
			m, err := r.measure(ctx, y, events, events*n, batched(y.Addr, 4, events, min(batchSize, max(events/4, 1))).Run)
			if err != nil {
				return err
			}
			at := number(float64(n)) + " subscriptions"
			r.point(deliveredSeries, at, float64(n), "deliveries/s", m.rate)
			r.point(cpuSeries, at, float64(n), "ms", m.use.own())
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// overLog measures ingest and delivery with increasing numbers of events in the
// log.
func overLog(ctx context.Context, r *Run) error {
	return r.withSystem(ctx, func(ctx context.Context, y *System) error {
		if err := y.subscribe(ctx, inFlight, "one"); err != nil {
			return err
		}
		if err := y.warm(ctx); err != nil {
			return err
		}
		held := 0
		for _, n := range []int{0, 1_000_000, 3_000_000, 10_000_000} {
			if err := y.fill(ctx, r.scale(n)-held); err != nil {
				return err
			}
			held = r.scale(n)
			events := r.scale(50_000)
			m, err := r.measure(ctx, y, events, events, batched(y.Addr, 4, events, batchSize).Run)
			if err != nil {
				return err
			}
			at := number(float64(held)) + " events in the log"
			r.point(ingestSeries, at, float64(held), "events/s", m.Rate()*batchSize)
			r.point(deliveredSeries, at, float64(held), "events/s", m.rate)
		}
		return nil
	})
}

// fill appends events that match no subscription, bypassing the API, and waits
// until the relay is past them.
func (y *System) fill(ctx context.Context, n int) error {
	db, err := postgres.Open(y.address, "bench", 1)
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }() // nothing depends on it
	const chunk = 100_000
	for done := 0; done < n; done += chunk {
		if _, err := db.ExecContext(ctx, `
			INSERT INTO posthorn.outbox (id, type, subject, data)
			SELECT 'fill-' || gen_random_uuid(), 'bench.fill', 'photo/' || n, convert_to('{"n":' || n || '}', 'UTF8')
			FROM generate_series(1, $1::integer) n`, min(chunk, n-done)); err != nil {
			return fmt.Errorf("fill log: %w", err)
		}
		if done%1_000_000 == 0 {
			y.config.Progress("  filled %d of %d events", done, n)
		}
	}
	if _, err := db.ExecContext(ctx, `ANALYZE posthorn.outbox`); err != nil {
		return fmt.Errorf("analyze log: %w", err)
	}
	return y.settle(ctx)
}

// overRate measures latency at increasing rates, until the system no longer
// reaches the rate.
func overRate(ctx context.Context, r *Run) error {
	return r.withSystem(ctx, func(ctx context.Context, y *System) error {
		if err := y.subscribe(ctx, inFlight, "one"); err != nil {
			return err
		}
		if err := y.warm(ctx); err != nil {
			return err
		}
		for _, rate := range []int{50, 100, 200, 500, 1000, 2000, 3000, 4000, 5000, 6000, 8000, 10_000} {
			events := rate * max(r.scale(10), 2)
			m, err := r.measure(ctx, y, events, events, func(ctx context.Context) (*Outcome, error) {
				return single(y.Addr, 64, events, float64(rate)).Run(ctx)
			})
			if err != nil {
				return err
			}
			at := number(float64(rate)) + " events/s offered"
			r.point("p50", at, float64(rate), "ms", ms(m.arrived.Latency.Quantile(0.5)))
			r.point("p99", at, float64(rate), "ms", ms(m.arrived.Latency.Quantile(0.99)))
			if m.rate < 0.9*float64(rate) {
				return nil
			}
		}
		return nil
	})
}

// subscriptionBody returns a function that appends the requests that subscribe
// the receiver's subscribers s0, s1, ... to some types.
func (y *System) subscriptionBody(types ...string) func(dst []byte, i int, _ time.Time) []byte {
	return func(dst []byte, i int, _ time.Time) []byte {
		return y.appendSubscription(dst, "s"+strconv.Itoa(i), types...)
	}
}
