package bench

import (
	"context"
	"errors"
	"fmt"
	"time"

	"posthorn/services/lab/site"
)

// Scenario is one measurement.
type Scenario struct {
	Name string
	// About describes it in one line.
	About string
	// Long means that a run takes minutes.
	Long bool
	run  func(ctx context.Context, r *Run) error
}

// Scenarios returns all scenarios, in the order of the table.
func Scenarios() []Scenario {
	return []Scenario{
		{
			Name: "burst", About: "50,000 events at once in batches of 100, one subscription with 64 in flight",
			run: burst(func(addr string, events int) Load { return batched(addr, 4, events, batchSize) }),
		},
		{
			Name: "burst-singles", About: "50,000 events at once, one a request over 64 connections, one subscription with 64 in flight",
			run: burst(func(addr string, events int) Load { return single(addr, 64, events, 0) }),
		},
		{Name: "ingest", About: "events accepted by the API, without subscriptions", run: ingest},
		{
			Name: "paced-200", About: "single events at 200 a second, one subscription",
			run: paced(200, map[string]Goal{"p50": {Below: 10}, "p99": {Below: 40}}),
		},
		{
			Name: "paced-1000", About: "single events at 1,000 a second, one subscription",
			run: paced(1000, map[string]Goal{"p99": {Below: 100}}),
		},
		{Name: "likes-1000", About: "likes at 1,000 a second, one subscription", run: pacedLikes},
		{
			Name: "fan-out-10", About: "5,000 events at once for 10 subscriptions with 8 in flight each",
			run: fanOut(10, 5000, Goal{AtLeast: 6000}),
		},
		{
			Name: "fan-out-100", About: "500 events at once for 100 subscriptions with 8 in flight each",
			run: fanOut(100, 500, Goal{}),
		},
		{
			Name: "slow-one", About: "20,000 events at once for a receiver that takes 100 ms, one subscription with 256 in flight",
			run: slowOne,
		},
		{
			Name: "slow-1000", About: "single events at 200 a second for 1,000 subscriptions whose receivers take 100 ms, 5 % of them 10 s",
			run: slowCrowd,
		},
		{
			Name: "hanging-one", About: "single events at 200 a second for nine subscriptions that answer and one that hangs",
			run: hangingOne,
		},
		{Name: "broker-down", About: "likes at 1,000 a second while RabbitMQ is dead (killed)", run: brokerDown},
		{Name: "idle", About: "ten subscriptions, no event", run: idle},
		{Name: "crowd-1000", About: "1,000 subscriptions with types of their own", run: crowd(1000)},
		{Name: "crowd-10000", About: "10,000 subscriptions with types of their own", Long: true, run: crowd(10_000)},
		{
			Name: "backlog", About: "a million events that wait when the relay starts, one subscription",
			Long: true, run: backlog,
		},
		{
			Name: "curve-subscriptions", About: "50,000 deliveries in a burst to 1, 10, 100, 1,000 and 10,000 subscriptions with 8 in flight each",
			Long: true, run: overSubscriptions,
		},
		{
			Name: "curve-log", About: "a burst of 50,000 events with 0, 1, 3 and 10 million events in the log",
			Long: true, run: overLog,
		},
		{
			Name: "curve-rate", About: "single events, 10 s at each rate until it is no longer reached, one subscription",
			Long: true, run: overRate,
		},
	}
}

// Run is one run of a scenario.
type Run struct {
	*Site

	figures  []Figure
	use      *Use // of the last load
	scenario Scenario
	quick    bool
}

// Measure runs a scenario a number of times. The result also has the errors of
// failed runs.
func Measure(ctx context.Context, at *Site, s Scenario, runs int, quick bool) (Result, error) {
	result := Result{Scenario: s.Name, About: s.About, At: time.Now(), Quick: quick}
	var failed []error
	for i := range runs {
		at.config.Progress("%s, run %d of %d", s.Name, i+1, runs)
		result.Load = append(result.Load, loadAverage())
		r := &Run{Site: at, scenario: s, quick: quick}
		begun := time.Now()
		err := s.run(ctx, r)
		if ctx.Err() != nil {
			return result, ctx.Err()
		}
		if err != nil {
			at.config.Progress("  failed: %v", err)
			failed = append(failed, fmt.Errorf("%s: %w", s.Name, err))
			result.Failed = append(result.Failed, err.Error())
			continue
		}
		at.config.Progress("  (%v)", time.Since(begun).Round(time.Second))
		result.Runs = append(result.Runs, r.figures)
		if r.use != nil {
			result.Uses = append(result.Uses, *r.use)
		}
	}
	return result, errors.Join(failed...)
}

// scale returns a number of events, or a tenth of it in a quick run.
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

// withSystem runs f with a new Posthorn.
func (r *Run) withSystem(ctx context.Context, f func(ctx context.Context, y *System) error) error {
	y, err := r.startSystem(ctx)
	if err != nil {
		return err
	}
	return errors.Join(f(ctx, y), y.close(ctx))
}

// warm sends a few events through the system, so that connections, plans and
// caches exist, and so that the measurement begins once everything is ready.
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

// measured is the result of a load.
type measured struct {
	*Outcome
	arrived *Tally
	use     Use
	// rate is deliveries a second, from the first answer of the API to the
	// last delivery.
	rate float64
}

// measure runs a load, waits for its deliveries and checks them.
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
	if m.arrived, err = y.Tally(ctx); err != nil {
		return nil, err
	}
	if err := m.arrived.Check(deliveries); err != nil {
		return nil, err
	}
	m.rate = float64(deliveries) / m.arrived.Last.Sub(m.FirstAnswer).Seconds()
	m.use, err = y.used(after.since(before), deliveries)
	r.use = &m.use
	return m, err
}

// used adds the memory to the CPU time.
func (y *System) used(cpu CPU, deliveries int) (Use, error) {
	use := Use{CPU: cpu, Deliveries: deliveries}
	var errs [2]error
	_, use.Posthorn, errs[0] = site.MemoryOf(y.process.PID())
	_, use.RabbitMQ, errs[1] = site.MemoryOf(y.RabbitMQ.PID())
	return use, errors.Join(errs[:]...)
}

// addUse adds the resources that the load took, as figures with goals.
func (r *Run) addUse(m *measured) {
	r.add("CPU per delivery, Posthorn + Postgres + RabbitMQ", "ms", m.use.own(), Goal{Below: 0.5}, 0, "")
	r.add("CPU per delivery, generator and receiver too", "ms", m.use.all(), Goal{}, 0, "")
}
