package bench

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Figure is one number that a run of a scenario measured.
type Figure struct {
	Name  string
	Unit  string
	Value float64
	// Raw is the limit that the same run measured, named Limit; 0 if there is
	// nothing to compare with.
	Raw   float64
	Limit string
	Goal  Goal
	// Series and X place the figure on a curve; Series is empty otherwise.
	Series string
	X      float64
}

// Goal is the target of a figure. The zero value has none.
type Goal struct {
	// AtLeast requires this much, or Share of the raw limit, whichever is less.
	// One of them may be 0.
	AtLeast, Share float64
	// Below requires less.
	Below float64
	// Times requires at most this multiple of the raw figure.
	Times float64
}

// String returns the goal as the table shows it.
func (g Goal) String() string {
	switch {
	case g.AtLeast > 0 && g.Share > 0:
		return fmt.Sprintf("at least %s or %s of the limit", number(g.AtLeast), number(g.Share))
	case g.AtLeast > 0:
		return "at least " + number(g.AtLeast)
	case g.Share > 0:
		return fmt.Sprintf("at least %s of the limit", number(g.Share))
	case g.Below > 0:
		return "below " + number(g.Below)
	case g.Times > 0:
		return fmt.Sprintf("at most %s times that", number(g.Times))
	}
	return ""
}

// Judge reports whether the goal is reached, or by how much it is missed.
func (g Goal) Judge(value, ratio float64) string {
	switch {
	case g.AtLeast > 0 || g.Share > 0:
		part := 0.0
		if g.AtLeast > 0 {
			part = value / g.AtLeast
		}
		if g.Share > 0 {
			part = max(part, ratio/g.Share)
		}
		if part >= 1 {
			return "reached"
		}
		return fmt.Sprintf("**missed**: %.0f %% of it", 100*part)
	case g.Below > 0 && value < g.Below, g.Times > 0 && ratio <= g.Times:
		return "reached"
	case g.Below > 0:
		return fmt.Sprintf("**missed**: %s times as much", number(value/g.Below))
	case g.Times > 0:
		return fmt.Sprintf("**missed**: %s times as much", number(ratio/g.Times))
	}
	return ""
}

// Result has the measurements of the runs of a scenario.
type Result struct {
	Scenario string
	About    string
	At       time.Time
	// Quick means fewer events than About says.
	Quick bool
	// Load is the machine's load average before each run.
	Load []float64
	// Runs are the figures of each complete run.
	Runs [][]Figure
	// Uses are the resources that the measured load of each of them took.
	Uses []Use
	// Failed has the errors of the others.
	Failed []string
}

// Use has the resources that a load took.
type Use struct {
	CPU        CPU
	Deliveries int
	// Posthorn and RabbitMQ are their peak memory, in bytes.
	Posthorn, RabbitMQ int64
}

// own and all are CPU milliseconds per delivery, without and with generator and
// receiver.
func (u Use) own() float64 { return ms(u.CPU.Own()) / float64(max(u.Deliveries, 1)) }
func (u Use) all() float64 { return ms(u.CPU.Sum()) / float64(max(u.Deliveries, 1)) }

// row is a figure over all runs.
type row struct {
	Figure
	low, high, ratio float64
}

// rows aggregates the runs, in the order of the first.
func (r *Result) rows() []row {
	var out []row
	for _, run := range r.Runs {
		for _, f := range run {
			if slices.ContainsFunc(out, func(o row) bool { return o.Name == f.Name }) {
				continue
			}
			out = append(out, r.sum(f))
		}
	}
	return out
}

func (r *Result) sum(of Figure) row {
	var values, raws, ratios []float64
	for _, run := range r.Runs {
		for _, f := range run {
			if f.Name != of.Name {
				continue
			}
			values = append(values, f.Value)
			raws = append(raws, f.Raw)
			if f.Raw != 0 {
				ratios = append(ratios, f.Value/f.Raw)
			}
		}
	}
	sum := row{Figure: of, low: slices.Min(values), high: slices.Max(values), ratio: median(ratios)}
	sum.Value, sum.Raw = median(values), median(raws)
	return sum
}

func median(of []float64) float64 {
	if len(of) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(of))
	return (sorted[(len(sorted)-1)/2] + sorted[len(sorted)/2]) / 2
}

// number formats three significant digits, and groups thousands.
func number(v float64) string {
	switch {
	case v == 0:
		return "0"
	case math.Abs(v) >= 100:
		return thousands(strconv.FormatFloat(math.Round(v), 'f', 0, 64))
	}
	digits := max(0, 2-int(math.Floor(math.Log10(math.Abs(v)))))
	text := strconv.FormatFloat(v, 'f', min(digits, 3), 64)
	if strings.Contains(text, ".") {
		text = strings.TrimRight(strings.TrimRight(text, "0"), ".")
	}
	return text
}

func thousands(digits string) string {
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}
