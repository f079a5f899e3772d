package faults

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"iter"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"time"

	"posthorn/services/lab/site"
)

// within is the maximum recovery time after a fault.
const within = time.Minute

// Scenario is one fault under load.
type Scenario struct {
	Name string
	// Bound is the number of duplicates that the fault explains.
	Bound int
	// Failpoints are armed in the first process of a part, by its name such as
	// "relay", with a text of package failpoint. The scenario fails if they are
	// not hit.
	Failpoints map[string]string
	// Inject injects the fault, and returns when it is over. If nil, the
	// failpoints are the fault, or there is none.
	Inject func(ctx context.Context, c *Cluster) error
	// Rate is in events per second. Default 100.
	Rate int
	// Padding is the number of additional bytes of each event.
	Padding int
	// Keyed makes the producer send Idempotency-Key instead of an id.
	Keyed bool
	// More are additional parts, such as "relay3".
	More []string
	// Limits are the open file limits of parts.
	Limits map[string]int
	// Env has further settings of all parts, as NAME=value.
	Env []string
	// Servers starts the row's own servers, and returns their cleanup.
	Servers func(ctx context.Context, dir string) (*site.Servers, func() error, error)
	// Prepare is called before the load begins.
	Prepare func(ctx context.Context, c *Cluster) error
	// Quick scenarios are run by every go test.
	Quick bool
}

// Row is the result of a scenario.
type Row struct {
	Name       string
	Accepted   int
	Expected   int
	Lost       int
	Duplicated int
	Bound      int
	Repeated   int // requests to the API that had to be repeated
	Recovery   time.Duration
	Verdict    string // empty if the row passes
	NotRun     string // the reason if it could not be run here
	At         time.Time
}

// Bench is the environment of scenarios.
type Bench struct {
	Servers *site.Servers
	// Binary is the posthorn command, built with -tags failpoints.
	Binary string
	// Dir is a folder that other users can pass through.
	Dir string
	// Seed decides the random choices: which part is killed when, which
	// response is an error. Each row has its own source, independent of earlier
	// rows.
	Seed uint64
}

// Run runs a scenario. An error means that it could not be run; the row has the
// findings, or the reason why this machine cannot run it.
func (b *Bench) Run(ctx context.Context, s Scenario) (Row, error) {
	row, err := b.run(ctx, s)
	if not, ok := errors.AsType[NotRunError](err); ok {
		row.NotRun = not.Reason
		return row, nil
	}
	return row, err
}

func (b *Bench) run(ctx context.Context, s Scenario) (row Row, err error) {
	row = Row{Name: s.Name, Bound: s.Bound, At: time.Now().UTC()}
	dir, err := os.MkdirTemp(b.Dir, "scenario-")
	if err != nil {
		return row, fmt.Errorf("make folder: %w", err)
	}
	if err := os.Chmod(dir, 0o711); err != nil { //nolint:gosec // a server's user has to pass through
		return row, fmt.Errorf("open folder: %w", err)
	}
	servers := b.Servers
	if s.Servers != nil {
		var end func() error
		if servers, end, err = s.Servers(ctx, dir); err != nil {
			return row, err
		}
		defer func() { err = errors.Join(err, end()) }()
	}
	c, err := newCluster(ctx, servers, b.Binary, dir, b.chance(s.Name))
	if err != nil {
		return row, err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	if err := c.prepare(ctx, s); err != nil {
		return row, err
	}
	load, err := c.load(ctx, s)
	if err != nil {
		return row, err
	}
	site.Pause(ctx, 2*time.Second)
	var injected error
	if s.Inject != nil {
		injected = s.Inject(ctx, c)
	}
	for name := range s.Failpoints {
		injected = errors.Join(injected, site.Await(ctx, 20*time.Second, "the failpoint in "+name+" is hit", func() bool {
			return c.parts[name].Crashes() > 0
		}))
	}
	faultEnd := time.Now()
	site.Pause(ctx, 2*time.Second)
	if err := errors.Join(injected, load.end()); err != nil {
		return row, err
	}
	row.Repeated = load.repeated()
	r, wrong, err := c.settle(ctx, faultEnd)
	if err != nil {
		return row, err
	}
	row.Accepted, row.Expected, row.Lost, row.Duplicated = r.Accepted, r.Expected, len(r.Lost), len(r.Duplicated)
	if verdict := r.Verdict(s.Bound, within); verdict != "" {
		wrong = append(wrong, verdict)
	}
	row.Recovery, row.Verdict = r.Recovery, strings.Join(wrong, "; ")
	return row, nil
}

// chance returns the random source of a row.
func (b *Bench) chance(name string) *rand.Rand {
	h := fnv.New64a()
	_, _ = h.Write([]byte(name))                    // a hash does not fail
	return rand.New(rand.NewPCG(b.Seed, h.Sum64())) //nolint:gosec // reproducible
}

// prepare starts the parts and creates the subscriptions.
func (c *Cluster) prepare(ctx context.Context, s Scenario) error {
	c.limits = s.Limits
	c.env = append(c.env, s.Env...)
	if err := c.startAll(ctx, s.Failpoints, s.More...); err != nil {
		return err
	}
	for _, sub := range []struct {
		name  string
		types []string
	}{{"a", []string{"T.1", "T.2"}}, {"b", []string{"T.2"}}, {"victim", []string{"T.1"}}} {
		if err := c.subscribe(ctx, sub.name, sub.types...); err != nil {
			return err
		}
	}
	if s.Prepare == nil {
		return nil
	}
	return s.Prepare(ctx, c)
}

// load is a running producer.
type load struct {
	producer *Producer
	stop     context.CancelFunc
	done     chan error
}

func (c *Cluster) load(ctx context.Context, s Scenario) (*load, error) {
	p, err := NewProducer(c.API, c.asked(), strings.TrimSuffix(c.Namespace, ".")+"-", 100, "T.1", "T.2", "T.3")
	if err != nil {
		return nil, err
	}
	if s.Rate != 0 {
		p.Rate = s.Rate
	}
	p.Padding, p.Keyed = s.Padding, s.Keyed
	l := &load{producer: p, done: make(chan error, 1)}
	ctx, l.stop = context.WithCancel(ctx)
	go func() { l.done <- p.Run(ctx) }()
	return l, nil
}

// end stops the load and waits until everything that was begun is accepted.
func (l *load) end() error {
	l.stop()
	return <-l.done
}

func (l *load) repeated() int { return int(l.producer.failed.Load()) }

// settle waits until every delivery has finished, and returns the report and
// the findings of the row's own checks.
func (c *Cluster) settle(ctx context.Context, faultEnd time.Time) (r Report, wrong []string, err error) {
	var run run
	_ = site.Await(ctx, within+20*time.Second, "everything has ended", func() bool { // the report has the unfinished ones
		if n, err := c.unfinished(ctx); err != nil || n > 0 {
			return false
		}
		r, run, err = c.report(ctx, faultEnd)
		return err == nil && len(r.Lost) == 0 && r.Unfinished == 0
	})
	// A remaining copy would arrive in a moment.
	site.Pause(ctx, time.Second)
	if r, run, err = c.report(ctx, faultEnd); err != nil {
		return r, nil, err
	}
	for _, check := range c.checks {
		if finding := check(run); finding != "" {
			wrong = append(wrong, finding)
		}
	}
	return r, wrong, nil
}

// run is the recorded data of a scenario.
type run struct {
	asked    []Accepted
	arrivals []Arrival
}

// arrived returns the requests to a subscriber.
func (r run) arrived(name string) iter.Seq[Arrival] {
	return func(yield func(Arrival) bool) {
		for _, a := range r.arrivals {
			if a.Subscriber == name && !yield(a) {
				return
			}
		}
	}
}

func (c *Cluster) asked() string { return filepath.Join(c.dir, "accepted.jsonl") }

func (c *Cluster) report(ctx context.Context, faultEnd time.Time) (Report, run, error) {
	// Read the ledger before the arrivals: its deliveries have to be among
	// them, even while others are still in flight.
	delivered, unfinished, err := c.ledger(ctx)
	if err != nil {
		return Report{}, run{}, err
	}
	accepted, err := readJournal[Accepted](c.asked())
	if err != nil {
		return Report{}, run{}, err
	}
	arrivals, err := readJournal[Arrival](filepath.Join(c.dir, "arrivals.jsonl"))
	if err != nil {
		return Report{}, run{}, err
	}
	r := Check(accepted, arrivals, c.expected, delivered, faultEnd)
	r.Unfinished = unfinished
	return r, run{accepted, arrivals}, nil
}
