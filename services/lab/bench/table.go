package bench

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"time"
)

// keepBelow stands before the part of the document that Document keeps.
const keepBelow = "<!-- What follows is kept when the table is written anew. -->"

// Report has the results of all scenarios, which may be from different runs of
// the command.
type Report struct {
	Machine string
	Results []Result
}

// Put adds a scenario's result, in the place of an earlier one.
func (r *Report) Put(result Result) {
	if i := slices.IndexFunc(r.Results, func(o Result) bool { return o.Scenario == result.Scenario }); i >= 0 {
		r.Results[i] = result
		return
	}
	r.Results = append(r.Results, result)
}

// Table returns the results in Markdown, in the order of Scenarios.
func (r *Report) Table() string {
	var b strings.Builder
	b.WriteString("| scenario | figure | median | range | limit in the same run | ratio | goal | |\n|---|---|--:|--:|---|--:|---|---|\n")
	for _, s := range Scenarios() {
		for _, result := range r.Results {
			if result.Scenario == s.Name {
				writeRows(&b, result)
			}
		}
	}
	return b.String()
}

func writeRows(b *strings.Builder, result Result) {
	name := "**" + result.Scenario + "**"
	for _, f := range result.rows() {
		limit, ratio, unit := "", "", f.Unit
		if f.Raw != 0 {
			limit, ratio = number(f.Raw)+" ("+f.Limit+")", number(f.ratio)
		}
		if unit != "" {
			unit = " " + unit
		}
		fmt.Fprintf(b, "| %s | %s | %s%s | %s – %s | %s | %s | %s | %s |\n", name, f.Name, number(f.Value), unit,
			number(f.low), number(f.high), limit, ratio, f.Goal, f.Goal.Judge(f.Value, f.ratio))
		name = ""
	}
	for _, failed := range result.Failed {
		fmt.Fprintf(b, "| %s | | | | | | | **failed**: %s |\n", name, strings.NewReplacer("|", "/", "\n", " ").Replace(failed))
		name = ""
	}
}

// busy reports whether the load before a run was more than the previous run can
// have left.
func (r *Report) busy() bool {
	return slices.ContainsFunc(r.Results, func(result Result) bool {
		return slices.ContainsFunc(result.Load, func(l float64) bool { return l > 4*float64(runtime.NumCPU()) })
	})
}

// useTable returns the resources that the measured loads took.
func (r *Report) useTable() string {
	var b strings.Builder
	b.WriteString("## CPU seconds and memory\n\nOf the measured load alone, medians. Per delivery: Posthorn, Postgres and RabbitMQ; in brackets all five.\n\n" +
		"| scenario | deliveries | Posthorn | Postgres | RabbitMQ | receiver | generator | ms per delivery | peak memory of Posthorn, RabbitMQ |\n" +
		"|---|--:|--:|--:|--:|--:|--:|--:|--:|\n")
	for _, s := range Scenarios() {
		for _, result := range r.Results {
			if result.Scenario != s.Name || len(result.Uses) == 0 {
				continue
			}
			of := func(f func(u Use) float64) string {
				values := make([]float64, len(result.Uses))
				for i, u := range result.Uses {
					values[i] = f(u)
				}
				return number(median(values))
			}
			fmt.Fprintf(&b, "| **%s** | %s |", s.Name, of(func(u Use) float64 { return float64(u.Deliveries) }))
			for _, name := range []string{posthorn, postgresP, rabbitmq, receiver, generator} {
				fmt.Fprintf(&b, " %s |", of(func(u Use) float64 { return u.CPU[name].Seconds() }))
			}
			fmt.Fprintf(&b, " %s (%s) | %s, %s MB |\n", of(Use.own), of(Use.all),
				of(func(u Use) float64 { return float64(u.Posthorn) / 1e6 }), of(func(u Use) float64 { return float64(u.RabbitMQ) / 1e6 }))
		}
	}
	return b.String()
}

// Document returns the document of a name with these results. It keeps the part
// of earlier below its mark.
func (r *Report) Document(name, earlier string) string {
	var b strings.Builder
	b.WriteString(`# Performance

Written by ` + "`make bench`" + `, which starts a private Postgres and RabbitMQ, and for each run a new Posthorn, all parts in one process.
Safety settings are those of production: fsync and synchronous commits, durable queues, publisher confirms, manual
acknowledgements; messages of subscriptions are transient, as by default, and those of the limits are persistent. An event is about 300 bytes. The load generator and the receiver are separate processes on the same machine.

**How to read it.** Machines differ and are noisy, so the ratio to the limit, which the same run measured, says more than the
figure. Limits are Postgres alone (pgbench, 16 connections, a plain table with a primary key), RabbitMQ alone (published with confirms and
consumed with acknowledgements concurrently, both pipelined) and HTTP alone (plain POSTs to the same receiver). Latency counts from when a
request was **due**, not from when it could be made, so a stall counts for all requests that it delayed. Delivered rates count from the first
response of the API to the last delivery. Each run is checked: a run that lost or duplicated an event has failed and has no figures.
CPU time is that of the process and its descendants. Medians are over all runs; ranges are from the lowest to the highest.

Each scenario is run three times; crowd-10000, backlog and the curves, whose runs take minutes, once unless ` + "`-long 3`" + ` asks for more. To run a part of it:
` + "`make bench BENCH='-only \"burst|paced\" -runs 5'`" + `; other scenarios keep their results. ` + "`-pprof FOLDER`" + ` also keeps CPU profiles of Posthorn.

`)
	fmt.Fprintf(&b, "%s\n\n%s\n%s\n## Scenarios\n\n| scenario | | measured (UTC) | runs | load of the machine before each |\n|---|---|---|--:|---|\n", r.Machine, r.Table(), r.useTable())
	for _, s := range Scenarios() {
		for _, result := range r.Results {
			if result.Scenario != s.Name {
				continue
			}
			loads := make([]string, len(result.Load))
			for i, l := range result.Load {
				loads[i] = fmt.Sprintf("%.1f", l)
			}
			about := s.About
			if result.Quick {
				about += " (quick: a tenth of it)"
			}
			fmt.Fprintf(&b, "| **%s** | %s | %s | %d | %s |\n", s.Name, about, result.At.UTC().Format(time.DateOnly+" 15:04"), len(result.Runs), strings.Join(loads, ", "))
		}
	}
	for _, c := range curves() {
		if slices.ContainsFunc(r.Results, func(o Result) bool { return o.Scenario == c.scenario && len(o.Runs) > 0 }) {
			fmt.Fprintf(&b, "\n![%s](%s)\n", c.title, c.file(name))
		}
	}
	if r.busy() {
		b.WriteString("\nThe machine was busy with other work during some of these runs: their figures are lower than the machine's own would be.\n")
	}
	_, kept, found := strings.Cut(earlier, keepBelow)
	if !found {
		kept = "\n"
	}
	return b.String() + "\n" + keepBelow + kept
}
