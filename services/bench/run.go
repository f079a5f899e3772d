package bench

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Scenario is something to measure.
type Scenario struct {
	Name string
	// About says in a line what it is.
	About string
	run   func(ctx context.Context, r *Run) error
}

// Scenarios are all, in the order of the table.
func Scenarios() []Scenario {
	return []Scenario{
		{"burst", "50,000 events at once in batches of 100, one subscription with 64 in flight", burst},
		{"ingest", "what the API takes in, with nobody subscribed", ingest},
		{"paced-200", "single events at 200 a second, one subscription", paced(200, map[string]Goal{"p50": {Below: 10}, "p99": {Below: 40}})},
		{"paced-1000", "single events at 1,000 a second, one subscription", paced(1000, map[string]Goal{"p99": {Below: 100}})},
		{"likes-1000", "likes at 1,000 a second, one subscription", pacedLikes},
		{"fan-out-10", "5,000 events at once for 10 subscriptions with 8 in flight each", fanOut(10, 5000, Goal{AtLeast: 6000})},
		{"fan-out-100", "500 events at once for 100 subscriptions with 8 in flight each", fanOut(100, 500, Goal{})},
		{"hanging-one", "single events at 200 a second for nine subscriptions that answer and one that hangs", hangingOne},
		{"broker-down", "likes at 1,000 a second while RabbitMQ is dead (killed)", brokerDown},
		{"idle", "ten subscriptions, no event", idle},
		{"crowd-1000", "1,000 subscriptions with types of their own", crowd(1000)},
		{"crowd-10000", "10,000 subscriptions with types of their own", crowd(10_000)},
		{"backlog", "a million events that wait when the relay starts, one subscription", backlog},
	}
}

// Run is one run of a scenario.
type Run struct {
	*Site

	figures  []Figure
	scenario Scenario
	quick    bool
}

// Measure runs a scenario a number of times. What goes wrong in a run is in
// the result too.
func Measure(ctx context.Context, site *Site, s Scenario, runs int, quick bool) (Result, error) {
	result := Result{Scenario: s.Name, About: s.About, At: time.Now(), Quick: quick}
	var failed []error
	for i := range runs {
		site.config.Progress("%s, run %d of %d", s.Name, i+1, runs)
		result.Load = append(result.Load, loadAverage())
		r := &Run{Site: site, scenario: s, quick: quick}
		begun := time.Now()
		err := s.run(ctx, r)
		if ctx.Err() != nil {
			return result, ctx.Err()
		}
		if err != nil {
			site.config.Progress("  failed: %v", err)
			failed = append(failed, fmt.Errorf("%s: %w", s.Name, err))
			result.Failed = append(result.Failed, err.Error())
			continue
		}
		site.config.Progress("  (%v)", time.Since(begun).Round(time.Second))
		result.Runs = append(result.Runs, r.figures)
	}
	return result, errors.Join(failed...)
}

// scale is a number of events, or a tenth of it in a quick run.
func (r *Run) scale(n int) int {
	if r.quick {
		return n / 10
	}
	return n
}

func (r *Run) add(name, unit string, value float64, goal Goal, raw float64, limit string) {
	r.figures = append(r.figures, Figure{Name: name, Unit: unit, Value: value, Goal: goal, Raw: raw, Limit: limit})
	line := fmt.Sprintf("  %-44s %12.2f %s", name, value, unit)
	if raw != 0 {
		line += fmt.Sprintf("  (%s: %.2f, ratio %.2f)", limit, raw, value/raw)
	}
	r.config.Progress("%s", line)
}

// withSystem runs f with a Posthorn that is new.
func (r *Run) withSystem(ctx context.Context, f func(ctx context.Context, y *System) error) error {
	y, err := r.startSystem(ctx)
	if err != nil {
		return err
	}
	return errors.Join(f(ctx, y), y.close(ctx))
}

// warm sends a few events through the system, so that connections, plans and
// caches are there, and so that what is measured begins when all is ready.
func (y *System) warm(ctx context.Context) error {
	const events = 500
	return y.warmWith(ctx, events, single(y.Addr, 16, events, 0))
}

func (y *System) warmLikes(ctx context.Context) error {
	const events = 500
	return y.warmWith(ctx, events, y.likes(16, events, 0))
}

func (y *System) warmWith(ctx context.Context, events int, load Load) error {
	if err := y.Expect(ctx, events); err != nil {
		return err
	}
	if _, err := load.Run(ctx); err != nil {
		return err
	}
	return y.Await(ctx, events*y.subscribed, 60*time.Second)
}

// measured is what a load led to.
type measured struct {
	*Outcome
	arrived *Tally
	cpu     CPU
	peak    int64
	// rate is deliveries a second, from the first answer of the API to the
	// last delivery.
	rate float64
}

// measure runs a load, waits for the deliveries it leads to and checks them.
func (r *Run) measure(
	ctx context.Context, y *System, events, deliveries int, load func(context.Context) (*Outcome, error),
) (_ *measured, err error) {
	if err := y.Expect(ctx, events); err != nil {
		return nil, err
	}
	before, err := y.cpu()
	if err != nil {
		return nil, err
	}
	stop := y.profile(ctx, r.scenario.Name)
	m := &measured{}
	m.Outcome, err = load(ctx)
	if err == nil {
		err = y.Await(ctx, deliveries, patience)
	}
	after, failed := y.cpu()
	if err := errors.Join(err, failed, stop()); err != nil {
		return nil, err
	}
	m.cpu = after.since(before)
	if m.arrived, err = y.Tally(ctx); err != nil {
		return nil, err
	}
	if err := m.arrived.Check(deliveries); err != nil {
		return nil, err
	}
	m.rate = float64(deliveries) / m.arrived.Last.Sub(m.FirstAnswer).Seconds()
	_, m.peak, err = memoryOf(y.process.pid())
	return m, err
}

// addCPU adds the CPU time of each process, and per delivered event.
func (r *Run) addCPU(m *measured) {
	per := func(d time.Duration) float64 { return ms(d) / float64(m.arrived.Arrived) }
	for _, name := range []string{posthorn, postgresP, rabbitmq, receiver, generator} {
		r.add("CPU of "+name, "s", m.cpu[name].Seconds(), Goal{}, 0, "")
	}
	r.add("CPU per delivery, Posthorn + Postgres + RabbitMQ", "ms", per(m.cpu.Own()), Goal{Below: 0.5}, 0, "")
	r.add("CPU per delivery, generator and receiver too", "ms", per(m.cpu.Sum()), Goal{}, 0, "")
}
