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
	}
}

// Run is one run of a scenario.
type Run struct {
	*Site
	Figures []Figure

	scenario Scenario
	quick    bool
}

// RunOnce runs a scenario and returns its figures.
func RunOnce(ctx context.Context, site *Site, s Scenario, quick bool) ([]Figure, error) {
	r := &Run{Site: site, scenario: s, quick: quick}
	if err := s.run(ctx, r); err != nil {
		return nil, fmt.Errorf("%s: %w", s.Name, err)
	}
	return r.Figures, nil
}

// scale is a number of events, or a tenth of it in a quick run.
func (r *Run) scale(n int) int {
	if r.quick {
		return n / 10
	}
	return n
}

func (r *Run) add(name, unit string, value float64, goal Goal, raw float64, limit string) {
	f := Figure{Scenario: r.scenario.Name, Name: name, Unit: unit, Value: value, Goal: goal, Raw: raw, Limit: limit}
	r.Figures = append(r.Figures, f)
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
	if err := y.Expect(ctx, events); err != nil {
		return err
	}
	if _, err := single(y.Addr, 16, events, 0).Run(ctx); err != nil {
		return err
	}
	return y.Await(ctx, events*y.subscribed, 60*time.Second)
}

// measured is what a load led to.
type measured struct {
	*Outcome
	arrived *Tally
	tallies map[string]*Tally
	cpu     CPU
	peak    int64
	// rate is deliveries a second, from the first answer of the API to the
	// last delivery.
	rate float64
}

// measure runs a load, waits for the deliveries it leads to and checks them.
func (r *Run) measure(
	ctx context.Context, y *System, name string, deliveries int, load func(context.Context) (*Outcome, error),
) (_ *measured, err error) {
	before, err := y.cpu()
	if err != nil {
		return nil, err
	}
	stop := y.profile(ctx, name)
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
	if m.tallies, err = y.Tallies(ctx); err != nil {
		return nil, err
	}
	m.arrived = Sum(m.tallies)
	if err := m.arrived.Check(deliveries); err != nil {
		return nil, err
	}
	m.rate = float64(deliveries) / m.arrived.Last.Sub(m.FirstAnswer).Seconds()
	_, m.peak, err = memoryOf(y.process.pid())
	return m, err
}

// addCPU adds the CPU time per delivered event.
func (r *Run) addCPU(m *measured, of string) {
	per := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 / float64(m.arrived.Arrived) }
	for _, name := range []string{posthorn, postgresP, rabbitmq, receiver, generator} {
		r.add("CPU "+name+of, "s", m.cpu[name].Seconds(), Goal{}, 0, "")
	}
	r.add("CPU per delivery, Posthorn + Postgres + RabbitMQ"+of, "ms", per(m.cpu.Own()), Goal{Below: 0.5}, 0, "")
	r.add("CPU per delivery, generator and receiver too"+of, "ms", per(m.cpu.Sum()), Goal{}, 0, "")
}
