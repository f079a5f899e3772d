package bench

import (
	"context"
	"strconv"
	"time"
)

const (
	usualTime = 100 * time.Millisecond // response time of most receivers
	longTime  = 10 * time.Second       // response time of one in twenty
)

// slowOne measures how well a subscription with a receiver of typical speed uses
// its requests in flight.
func slowOne(ctx context.Context, r *Run) error {
	const inFlight = 256
	events := r.scale(20_000)
	return r.withSystem(ctx, func(ctx context.Context, y *System) error {
		if err := y.subscribe(ctx, inFlight, slowName(usualTime, 0)); err != nil {
			return err
		}
		if err := y.warm(ctx); err != nil {
			return err
		}
		m, err := r.measure(ctx, y, events, events, batched(y.Addr, 4, events, batchSize).Run)
		if err != nil {
			return err
		}
		most := inFlight / usualTime.Seconds()
		r.add("delivered", "events/s", m.rate, Goal{Share: 0.9}, most, "256 requests of 100 ms each")
		r.addUse(m)
		return nil
	})
}

// slowCrowd measures whether a few slow receivers delay the others.
func slowCrowd(ctx context.Context, r *Run) error {
	n := r.scale(1000)
	return r.withSystem(ctx, func(ctx context.Context, y *System) error {
		for i := range n {
			takes := usualTime
			if i%20 == 0 {
				takes = longTime
			}
			if err := y.subscribeTo(ctx, 8, ownType+strconv.Itoa(i), slowName(takes, i)); err != nil {
				return err
			}
		}
		if _, err := r.reachAll(ctx, y, n, time.Now()); err != nil {
			return err
		}
		m, err := r.own(ctx, y, func(i int) string { return ownType + strconv.Itoa(i%n) })
		if err != nil {
			return err
		}
		r.addLatency("request to receiver at 200 a second", &m.arrived.Latency, nil, "", map[string]Goal{"p99": {Below: 40}})
		r.add("peak memory of Posthorn", "MB", float64(m.use.Posthorn)/1e6, Goal{}, 0, "")
		return nil
	})
}
