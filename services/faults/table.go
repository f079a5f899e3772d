package faults

import (
	"fmt"
	"runtime"
	"strings"
	"time"
)

// Table is the document that says what came of each row.
func Table(rows []Row) string {
	var b strings.Builder
	b.WriteString(`# Faults

Written by ` + "`make faults`" + `: real processes (an API, two relays, two deliveries), a Postgres and a RabbitMQ of their own, about 100
events a second for three subscriptions, two of which want each of two types. A producer has on file what was accepted, the
subscribers what came, and a checker compares the two with the ledger. Processes that die are started again after 0.3 s, as systemd
would; nothing else is done by hand. Recovery is how long after the fault was over the last event was delivered that was accepted
before. Everything unexpected, corrupted, misrouted, or delivered in the ledger alone, fails a row too. "May" is how many events more than
once the fault explains: what is in flight, for each crash. "Repeated" are the producer's requests that had to be sent again, under the same id.

`)
	fmt.Fprintf(&b, "Run on %s/%s with %d CPUs, %s.\n\n", runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), runtime.Version())
	b.WriteString("| fault | at (UTC) | accepted | expected | lost | duplicated | may | repeated | recovery | |\n|---|---|--:|--:|--:|--:|--:|--:|--:|---|\n")
	for _, r := range rows {
		verdict := r.Verdict
		if verdict == "" {
			verdict = "ok"
		}
		fmt.Fprintf(&b, "| %s | %s | %d | %d | %d | %d | %d | %d | %.1f s | %s |\n", r.Name, r.At.Format(time.DateOnly+" 15:04"),
			r.Accepted, r.Expected, r.Lost, r.Duplicated, r.Bound, r.Repeated, r.Recovery.Seconds(), strings.ReplaceAll(verdict, "|", "/"))
	}
	b.WriteString("\n## Not run\n\n| fault | reason |\n|---|---|\n")
	for _, n := range NotRun() {
		fmt.Fprintf(&b, "| %s | %s |\n", n[0], n[1])
	}
	return b.String()
}
