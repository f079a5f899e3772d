package faults

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// within is how long everything may take to be back after a fault.
const within = time.Minute

// Scenario is one fault under load.
type Scenario struct {
	Name string
	// Bound is how many events more than once the fault explains.
	Bound int
	// Failpoints are armed in the first process of a part: "relay" to a text
	// of package failpoint. The scenario fails if they are not hit.
	Failpoints map[string]string
	// Inject brings the fault about, and returns when it is over. Nil: the
	// failpoints are the fault, or there is none.
	Inject func(ctx context.Context, c *Cluster) error
	// Rate is in events a second; 100 unless set.
	Rate int
	// Quick scenarios are run by every go test.
	Quick bool
}

// Row is what came of a scenario.
type Row struct {
	Name       string
	Accepted   int
	Expected   int
	Lost       int
	Duplicated int
	Bound      int
	Repeated   int // requests to the API that had to be repeated
	Recovery   time.Duration
	Verdict    string // empty where the row passes
	At         time.Time
}

// Run runs a scenario. An error says that it could not be run; what it found
// is in the row.
func Run(ctx context.Context, servers *Servers, binary, dir string, s Scenario) (row Row, err error) {
	row = Row{Name: s.Name, Bound: s.Bound, At: time.Now().UTC()}
	if dir, err = os.MkdirTemp(dir, "scenario-"); err != nil {
		return row, fmt.Errorf("make folder: %w", err)
	}
	c, err := newCluster(ctx, servers, binary, dir)
	if err != nil {
		return row, err
	}
	defer func() { err = errors.Join(err, c.close(context.WithoutCancel(ctx))) }()
	if err := c.startAll(ctx, s.Failpoints); err != nil {
		return row, err
	}
	for name, types := range map[string][]string{"a": {"T.1", "T.2"}, "b": {"T.2"}, "victim": {"T.1"}} {
		if err := c.subscribe(ctx, name, types...); err != nil {
			return row, err
		}
	}
	rate := s.Rate
	if rate == 0 {
		rate = 100
	}
	asked := filepath.Join(dir, "accepted.jsonl")
	p, err := NewProducer(c.API, asked, strings.TrimSuffix(c.Namespace, ".")+"-", rate, "T.1", "T.2", "T.3")
	if err != nil {
		return row, err
	}
	producing, stop := context.WithCancel(ctx)
	defer stop()
	produced := make(chan error, 1)
	go func() { produced <- p.Run(producing) }()
	pause(ctx, 2*time.Second)
	var injected error
	if s.Inject != nil {
		injected = s.Inject(ctx, c)
	}
	for name := range s.Failpoints {
		injected = errors.Join(injected, await(ctx, 20*time.Second, "the failpoint in "+name+" is hit", func() bool {
			return c.parts[name].crashes.Load() > 0
		}))
	}
	faultEnd := time.Now()
	pause(ctx, 2*time.Second)
	stop()
	if err := errors.Join(injected, <-produced); err != nil {
		return row, err
	}
	row.Repeated = int(p.failed.Load())

	// Everything has to end by itself.
	var r Report
	_ = await(ctx, within+20*time.Second, "everything has ended", func() bool { // the report says what has not
		got, err := c.report(ctx, asked, faultEnd)
		if err != nil {
			return false
		}
		r = got
		return len(r.Lost) == 0 && r.Unfinished == 0
	})
	if r, err = c.report(ctx, asked, faultEnd); err != nil {
		return row, err
	}
	row.Accepted, row.Expected, row.Lost, row.Duplicated = r.Accepted, r.Expected, len(r.Lost), len(r.Duplicated)
	row.Recovery, row.Verdict = r.Recovery, r.Verdict(s.Bound, within)
	return row, nil
}

func (c *Cluster) report(ctx context.Context, asked string, faultEnd time.Time) (Report, error) {
	accepted, err := readJournal[Accepted](asked)
	if err != nil {
		return Report{}, err
	}
	arrivals, err := readJournal[Arrival](filepath.Join(c.dir, "arrivals.jsonl"))
	if err != nil {
		return Report{}, err
	}
	delivered, unfinished, err := c.ledger(ctx)
	if err != nil {
		return Report{}, err
	}
	r := Check(accepted, arrivals, c.expected, delivered, faultEnd)
	r.Unfinished = unfinished
	return r, nil
}
