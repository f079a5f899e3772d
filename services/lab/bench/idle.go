package bench

import (
	"context"
	"fmt"
	"time"
)

// idle measures the CPU use of an idle system.
func idle(ctx context.Context, r *Run) error {
	length := 15 * time.Second
	if r.quick {
		length /= 3
	}
	// The servers settle after the scenario before.
	if err := pauseUntil(ctx, time.Now().Add(length/3)); err != nil {
		return err
	}
	servers, err := r.during(ctx, length, func() (CPU, error) { return r.cpu(0) })
	if err != nil {
		return err
	}
	return r.withSystem(ctx, func(ctx context.Context, y *System) error {
		for i := range 10 {
			if err := y.subscribe(ctx, 8, fmt.Sprint("s", i)); err != nil {
				return err
			}
		}
		if err := y.warm(ctx); err != nil {
			return err
		}
		// Wait until it has noticed that it is idle.
		if err := pauseUntil(ctx, time.Now().Add(length)); err != nil {
			return err
		}
		used, err := r.during(ctx, length, y.cpu)
		if err != nil {
			return err
		}
		share := func(d time.Duration) float64 { return 100 * d.Seconds() / length.Seconds() }
		r.add("Posthorn", "% of a core", share(used[posthorn]), Goal{}, 0, "")
		r.add("Postgres", "% of a core", share(used[postgresP]), Goal{}, share(servers[postgresP]), "without Posthorn")
		r.add("RabbitMQ", "% of a core", share(used[rabbitmq]), Goal{}, share(servers[rabbitmq]), "without Posthorn")
		r.add("all three", "% of a core", share(used.Own()), Goal{Below: 2}, share(servers.Own()), "without Posthorn")
		return nil
	})
}

// during measures the CPU time used during a period.
func (r *Run) during(ctx context.Context, length time.Duration, cpu func() (CPU, error)) (CPU, error) {
	before, err := cpu()
	if err != nil {
		return nil, err
	}
	if err := pauseUntil(ctx, time.Now().Add(length)); err != nil {
		return nil, err
	}
	after, err := cpu()
	if err != nil {
		return nil, err
	}
	return after.since(before), nil
}

// brokerDown measures the latency of a like while the broker is down, and
// checks that all arrive once it is back.
func brokerDown(ctx context.Context, r *Run) error {
	return r.withSystem(ctx, func(ctx context.Context, y *System) error {
		const rate = 1000
		if err := y.subscribeTo(ctx, inFlight, "LIKED_PHOTO", "one"); err != nil {
			return err
		}
		if err := y.warmLikes(ctx); err != nil {
			return err
		}
		events := rate * max(r.scale(pacedSeconds), 3)
		up, err := r.measure(ctx, y, events, events, func(ctx context.Context) (*Outcome, error) {
			return y.likes(64, events, rate).Run(ctx)
		})
		if err != nil {
			return err
		}
		if err := y.Expect(ctx, events); err != nil {
			return err
		}
		if err := r.RabbitMQ.Kill(); err != nil { //nolint:contextcheck // has to happen whatever ended
			return err
		}
		down, err := y.likes(64, events, rate).Run(ctx)
		if err != nil {
			return err
		}
		if err := r.RabbitMQ.Restart(ctx); err != nil {
			return err
		}
		back := time.Now()
		if err := y.Await(ctx, events, 3*patience); err != nil {
			return err
		}
		arrived, err := y.Tally(ctx)
		if err != nil {
			return err
		}
		if err := arrived.Check(events); err != nil {
			return err
		}
		r.addLatency("request to answer", &down.Latency, &up.Latency, "with the broker", map[string]Goal{"p99": {Below: 10}})
		r.add("all delivered after the broker's return", "s", arrived.Last.Sub(back).Seconds(), Goal{}, 0, "")
		return nil
	})
}

// hangingOne measures the latency of nine subscribers while a tenth one hangs.
func hangingOne(ctx context.Context, r *Run) error {
	const rate, well = 200, 9
	var latencies []*Histogram
	for _, hangs := range []bool{false, true} {
		err := r.withSystem(ctx, func(ctx context.Context, y *System) error {
			for i := range well {
				if err := y.subscribe(ctx, 8, fmt.Sprint("s", i)); err != nil {
					return err
				}
			}
			if hangs {
				if err := y.subscribe(ctx, 8, hanging); err != nil {
					return err
				}
				y.subscribed-- // its deliveries are not counted
			}
			if err := y.warm(ctx); err != nil {
				return err
			}
			events := rate * max(r.scale(pacedSeconds), 3)
			m, err := r.measure(ctx, y, events, events*well, func(ctx context.Context) (*Outcome, error) {
				return single(y.Addr, 64, events, rate).Run(ctx)
			})
			if err != nil {
				return err
			}
			latencies = append(latencies, &m.arrived.Latency)
			return nil
		})
		if err != nil {
			return err
		}
	}
	r.addLatency("request to the nine that answer", latencies[1], latencies[0], "without the hanging one", nil)
	return nil
}
