package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"time"

	"posthorn/services/internal/audit"
	"posthorn/services/internal/eventlog"
	"posthorn/services/internal/ledger"
)

// exitError ends the program with its own exit status, after the command has
// printed its output itself.
type exitError int

// errFindings: the command succeeded and found problems.
const errFindings exitError = 3

func (s exitError) Error() string { return "exit status " + strconv.Itoa(int(s)) }

type auditCmd struct {
	databaseFlags
	From          eventlog.Place `help:"First position, or a start time such as 2026-01-31T08:00:00Z. Default: the beginning of the log." placeholder:"PLACE"`
	To            eventlog.Place `help:"Last position, or an end time (exclusive). Default: the position of the relay." placeholder:"PLACE"`
	Grace         time.Duration  `help:"How overdue an unfinished delivery may be before it is reported." default:"10m"`
	Repair        bool           `help:"Enter lost deliveries in the ledger, due now, so that the relay sends them; repair stuck ones."`
	Strict        bool           `help:"Exit with status 3 for duplicated deliveries too."`
	JSON          bool           `name:"json" help:"Print one JSON object."`
	Limit         int            `help:"Maximum number of findings of each kind to print; all are counted." default:"100"`
	Quiet         bool           `help:"Show no progress."`
	ProgressEvery time.Duration  `help:"How often progress is shown." default:"2s"`
}

// Help is shown by --help.
func (auditCmd) Help() string {
	return `Checks that every event up to the relay's position has exactly one delivery for every matching subscription that was live at its position.

lost        owed, and not in the ledger
misrouted   the subscription belongs to another account than the event
unexpected  in the ledger, although neither owed nor part of a replay
unproven    delivered, without an attempt that got a 2xx response
stuck       not finished, and overdue by more than --grace
duplicated  got more than one 2xx response in a run; a crash can cause it; fails only with --strict

Exit status: 0 clean, 1 error, 3 findings, repaired or not.`
}

// auditFinding is a finding in JSON.
type auditFinding struct {
	Problem      audit.Problem `json:"problem"`
	Position     int64         `json:"position"`
	Event        string        `json:"event,omitempty"`
	Subscription string        `json:"subscription"`
	Status       ledger.Status `json:"status,omitempty"`
	Cause        ledger.Cause  `json:"cause"`
	Run          int           `json:"run"`
	Repaired     bool          `json:"repaired,omitempty"`
}

// auditResult is the whole audit in JSON.
type auditResult struct {
	Clean      bool                    `json:"clean"`
	From       int64                   `json:"from"`
	To         int64                   `json:"to"`
	Events     int64                   `json:"events"`
	Waiting    int64                   `json:"waiting"`
	Owed       int64                   `json:"owed"`
	Deliveries int64                   `json:"deliveries"`
	ByStatus   map[ledger.Status]int64 `json:"byStatus"`
	Found      map[audit.Problem]int64 `json:"found"`
	Repaired   int64                   `json:"repaired"`
	Findings   []auditFinding          `json:"findings"`
	Seconds    float64                 `json:"seconds"`
}

func (c *auditCmd) Run(ctx context.Context, e *env) error {
	pool, err := c.open("audit", 2)
	if err != nil {
		return err
	}
	defer func() { _ = pool.Close() }()
	after, through, err := eventlog.Bounds(ctx, pool, c.From, c.To)
	switch {
	case err != nil:
		return err
	case c.To.IsZero():
		through = 0 // bounded only by the relay's position
	case through == 0:
		through = -1 // nothing
	}
	started, report := time.Now(), newProgress(e.errOut, c.Quiet)
	report.every = c.ProgressEvery
	result := auditResult{Found: map[audit.Problem]int64{}, Findings: []auditFinding{}}
	shown := map[audit.Problem]int{}
	audited, err := audit.Run(ctx, pool, audit.Options{
		After: after, Through: through, Grace: c.Grace, Repair: c.Repair,
		Found: func(f audit.Finding) error {
			if shown[f.Problem]++; shown[f.Problem] <= c.Limit {
				result.Findings = append(result.Findings, auditFinding{
					f.Problem, f.Position, f.EventID, string(f.Subscription), f.Status, f.Cause, f.Run, f.Repaired,
				})
			}
			return nil
		},
		Progress: func(through, end int64) { report.show("audited up to position %d of %d\n", through, end) },
	})
	if err != nil {
		return notDone(ctx, fmt.Errorf("audit: %w", err)) // never 0, which would mean clean
	}
	result.Clean = true
	for _, p := range audit.Problems() {
		result.Found[p] = audited.Found[p]
		if audited.Found[p] > 0 && (p != audit.Duplicated || c.Strict) {
			result.Clean = false
		}
	}
	result.From, result.To = audited.After+1, audited.Through
	result.Events, result.Waiting, result.Owed, result.Deliveries = audited.Events, audited.Waiting, audited.Owed, audited.Deliveries
	result.ByStatus, result.Repaired, result.Seconds = audited.ByStatus, audited.Repaired, time.Since(started).Seconds()
	if c.JSON {
		err = json.NewEncoder(e.out).Encode(result)
	} else {
		err = result.print(e.out)
	}
	if err != nil {
		return fmt.Errorf("print audit: %w", err)
	}
	if !result.Clean {
		return errFindings
	}
	return nil
}

func (r *auditResult) print(w io.Writer) error {
	p := printer{w: w}
	for _, f := range r.Findings {
		repaired := ""
		if f.Repaired {
			repaired = ", repaired"
		}
		p.printf("%-10s position %d event %s subscription %s: status %q, cause %q, run %d%s\n",
			f.Problem, f.Position, orDash(f.Event), f.Subscription, f.Status, f.Cause, f.Run, repaired)
	}
	p.printf("positions %d to %d: %d events, %d deliveries owed, %d in the ledger (%d delivered, %d dead, %d cancelled, %d retrying, %d pending)\n",
		r.From, r.To, r.Events, r.Owed, r.Deliveries, r.ByStatus[ledger.Delivered], r.ByStatus[ledger.Dead],
		r.ByStatus[ledger.Cancelled], r.ByStatus[ledger.Retrying], r.ByStatus[ledger.Pending])
	if r.Waiting > 0 {
		p.printf("%d events are waiting for the relay and were not audited\n", r.Waiting)
	}
	for _, problem := range audit.Problems() {
		p.printf("%-10s %d\n", problem, r.Found[problem])
	}
	if r.Repaired > 0 {
		p.printf("%d deliveries were repaired: the relay sends those that are due\n", r.Repaired)
	}
	verdict := "clean"
	if !r.Clean {
		verdict = "not clean"
	}
	p.printf("%s, after %.1f s\n", verdict, r.Seconds)
	return p.err
}

// printer keeps the first error of many writes.
type printer struct {
	w   io.Writer
	err error
}

func (p *printer) printf(format string, args ...any) {
	if p.err == nil {
		_, p.err = fmt.Fprintf(p.w, format, args...)
	}
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
