package bench

import (
	"context"
	"fmt"
	"time"
)

// pacedSeconds is the length of a paced load.
const pacedSeconds = 15

// ms converts a duration to the table's milliseconds.
func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// addLatency adds quantiles; goals are by their names.
func (r *Run) addLatency(of string, h, raw *Histogram, limit string, goals map[string]Goal) {
	for _, q := range []struct {
		name string
		at   float64
	}{{"p50", 0.5}, {"p99", 0.99}, {"p99.9", 0.999}} {
		var beside float64
		if raw != nil {
			beside = ms(raw.Quantile(q.at))
		}
		r.add(of+", "+q.name, "ms", ms(h.Quantile(q.at)), goals[q.name], beside, limit)
	}
}

// paced sends single events at a rate to one subscription.
func paced(rate int, goals map[string]Goal) func(ctx context.Context, r *Run) error {
	return func(ctx context.Context, r *Run) error {
		seconds := max(r.scale(pacedSeconds), 3)
		_, raw, err := r.Inserts(ctx, 1, float64(rate), rawSeconds)
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
			events := rate * seconds
			m, err := r.measure(ctx, y, events, events, func(ctx context.Context) (*Outcome, error) {
				return single(y.Addr, 64, events, float64(rate)).Run(ctx)
			})
			if err != nil {
				return err
			}
			r.addLatency("request to receiver", &m.arrived.Latency, nil, "", goals)
			r.addLatency("request to answer", &m.Latency, raw, "insert of a row at this rate", nil)
			return nil
		})
	}
}

// pacedLikes sends likes at a rate, with a subscription to them.
func pacedLikes(ctx context.Context, r *Run) error {
	const rate = 1000
	_, raw, err := r.Inserts(ctx, 1, rate, rawSeconds)
	if err != nil {
		return err
	}
	return r.withSystem(ctx, func(ctx context.Context, y *System) error {
		if err := y.subscribeTo(ctx, inFlight, "LIKED_PHOTO", "one"); err != nil {
			return err
		}
		if err := y.warmLikes(ctx); err != nil {
			return err
		}
		events := rate * max(r.scale(pacedSeconds), 3)
		m, err := r.measure(ctx, y, events, events, func(ctx context.Context) (*Outcome, error) {
			return y.likes(64, events, rate).Run(ctx)
		})
		if err != nil {
			return err
		}
		r.addLatency("request to answer", &m.Latency, raw, "insert of a row at this rate", map[string]Goal{"p99": {Below: 10}})
		r.addLatency("request to receiver", &m.arrived.Latency, nil, "", nil)
		return nil
	})
}

// fanOut is a burst for several subscriptions.
func fanOut(subscriptions, events int, goal Goal) func(ctx context.Context, r *Run) error {
	return func(ctx context.Context, r *Run) error {
		raw, err := r.Posts(ctx, 64, r.scale(50_000))
		if err != nil {
			return err
		}
		return r.withSystem(ctx, func(ctx context.Context, y *System) error {
			for i := range subscriptions {
				if err := y.subscribe(ctx, 8, fmt.Sprint("s", i)); err != nil {
					return err
				}
			}
			if err := y.warm(ctx); err != nil {
				return err
			}
			events := r.scale(events)
			m, err := r.measure(ctx, y, events, events*subscriptions, func(ctx context.Context) (*Outcome, error) {
				return batched(y.Addr, 4, events, batchSize).Run(ctx)
			})
			if err != nil {
				return err
			}
			r.add("delivered", "deliveries/s", m.rate, goal, raw, "plain POSTs to the receiver, 64 connections")
			r.addUse(m)
			return nil
		})
	}
}
