package faults

import (
	"context"
	"fmt"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"time"
)

// Versions are the versions that the rows were run with.
type Versions struct{ Posthorn, Postgres, RabbitMQ string }

// Versions returns the versions in use.
func (b *Bench) Versions(ctx context.Context) (v Versions, err error) {
	out, err := exec.CommandContext(ctx, b.Binary, "version").Output() //nolint:gosec // the binary was built for this
	if err != nil {
		return v, fmt.Errorf("ask posthorn for its version: %w", err)
	}
	v.Posthorn = strings.TrimPrefix(strings.TrimSpace(string(out)), "posthorn ")
	//nolint:gosec // found by privateserver
	if out, err = exec.CommandContext(ctx, b.Servers.Postgres.BinDir()+"/postgres", "--version").Output(); err != nil {
		return v, fmt.Errorf("ask postgres for its version: %w", err)
	}
	v.Postgres = strings.TrimPrefix(strings.TrimSpace(string(out)), "postgres (PostgreSQL) ")
	if v.RabbitMQ, err = b.Servers.RabbitMQ.Ctl(ctx, "version"); err != nil {
		return v, fmt.Errorf("ask rabbitmq for its version: %w", err)
	}
	v.RabbitMQ = strings.TrimSpace(v.RabbitMQ)
	return v, nil
}

// Table returns the document with the result of each row.
func Table(rows []Row, v Versions, seed uint64) string {
	var b strings.Builder
	b.WriteString(preface)
	var accepted, expected, lost, duplicated, failed, last int
	for _, r := range rows {
		accepted, expected, lost, duplicated = accepted+r.Accepted, expected+r.Expected, lost+r.Lost, duplicated+r.Duplicated
		if r.Verdict != "" {
			failed++
		}
		if r.At.After(rows[last].At) {
			last = slices.IndexFunc(rows, func(o Row) bool { return o.Name == r.Name })
		}
	}
	if len(rows) > 0 {
		fmt.Fprintf(&b, "Last run %s, Posthorn %s, Postgres %s, RabbitMQ %s, %s on %s/%s, %d CPUs, `-seed %d`.\n\n",
			rows[last].At.Format("2006-01-02 15:04 UTC"), v.Posthorn, v.Postgres, v.RabbitMQ, runtime.Version(), runtime.GOOS, runtime.GOARCH,
			runtime.NumCPU(), seed)
		fmt.Fprintf(&b, "**%d rows, %d failed: %d events accepted, %d deliveries expected of them, %d lost, %d duplicated.**\n\n",
			len(rows), failed, accepted, expected, lost, duplicated)
	}
	b.WriteString("| fault | at (UTC) | accepted | expected | lost | duplicated | may | repeated | recovery | |\n|---|---|--:|--:|--:|--:|--:|--:|--:|---|\n")
	var not [][2]string
	for _, r := range rows {
		if r.NotRun != "" {
			not = append(not, [2]string{r.Name, r.NotRun})
			continue
		}
		verdict := r.Verdict
		if verdict == "" {
			verdict = "ok"
		}
		fmt.Fprintf(&b, "| %s | %s | %d | %d | %d | %d | %d | %d | %.1f s | %s |\n", r.Name, r.At.Format(time.DateOnly+" 15:04"),
			r.Accepted, r.Expected, r.Lost, r.Duplicated, r.Bound, r.Repeated, r.Recovery.Seconds(), cell(verdict))
	}
	b.WriteString("\n## Not run\n\n| fault | reason |\n|---|---|\n")
	for _, n := range append(not, NotRun()...) {
		fmt.Fprintf(&b, "| %s | %s |\n", n[0], cell(n[1]))
	}
	b.WriteString(elsewhere)
	return b.String()
}

// cell escapes text for a cell of the table.
func cell(text string) string {
	return strings.NewReplacer("|", "/", "\n", " ").Replace(text)
}

const preface = `# Faults

Written by ` + "`make faults`" + `. Each row runs an API, two relays and two deliveries as separate processes, on a private Postgres and
RabbitMQ, and breaks something. About 100 events a second are appended through the API, for three subscribers: ` + "`a`" + ` wants two of three
types, ` + "`b`" + ` and ` + "`victim`" + ` one each. A process or server that dies is restarted after 0.3 s, as systemd would do. Nothing else is done by hand.

The producer writes each event to a file before sending it and again when it was accepted, and repeats failed requests with the same id. The
subscribers write each request to a file before they answer it. At the end every accepted event has to be delivered, or the row waits 80 s
and fails. A checker compares the two files with each other and with the ledger. A row fails if any event was

- **lost**: accepted, but not answered with 2xx by each subscriber that is owed it
- **duplicated** more often than the fault explains: sent again after a 2xx. "May" is the maximum in flight, 48, for each
  crash or cut that can repeat a request. It is 0 without a fault, for SIGTERM, and for all faults of APIs and relays
- **unexpected, corrupted, misrouted**: a request without an event of the producer; other bytes, type, id or signature; the wrong subscriber
- **late**: sent to a subscription more than a second after its deletion
- **invented**: delivered according to the ledger, although the subscriber never answered 2xx
- **unfinished** in the ledger
- slow to recover: **recovery** is the time from the end of the fault to the delivery of the last event accepted before it; at most 60 s

or if the fault could not be injected, or its own conditions do not hold: other subscribers are served meanwhile, memory or goroutines stay flat, and so on.
"Repeated" counts the producer's requests that had to be sent again. ` + "`bin/faults -only 'text' -seed N`" + ` runs single rows; the same seed
makes the same random choices. ` + "`make test`" + ` runs some rows of this table, in random order, for a little more than a minute.

`

const elsewhere = `
## Shown elsewhere

| fault | where |
|---|---|
| a backlog of a million events | ` + "`make bench`, [performance](performance.md)" + ` |
| appends that commit out of order | tests of ` + "`services/internal/eventlog`" + ` and of the relay |
| certificates that are wrong, addresses that are private, redirects to them | tests of ` + "`services/internal/sender`" + ` |
`
