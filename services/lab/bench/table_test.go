package bench

import (
	"strings"
	"testing"
	"time"
)

func TestAGoalIsJudgedByTheMedians(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		goal         Goal
		value, ratio float64
		want         string
	}{
		{Goal{}, 1, 1, ""},
		{Goal{AtLeast: 6000}, 6000, 0, "reached"},
		{Goal{AtLeast: 6000}, 3000, 0, "**missed**: 50 % of it"},
		{Goal{Share: 0.7}, 1, 0.71, "reached"},
		{Goal{Share: 0.7}, 1e6, 0.35, "**missed**: 50 % of it"},
		// Reaching the lesser of them is enough.
		{Goal{AtLeast: 5000, Share: 0.4}, 5001, 0.1, "reached"},
		{Goal{AtLeast: 5000, Share: 0.4}, 100, 0.4, "reached"},
		{Goal{AtLeast: 5000, Share: 0.4}, 4000, 0.1, "**missed**: 80 % of it"},
		{Goal{Below: 10}, 9.99, 0, "reached"},
		{Goal{Below: 10}, 10, 0, "**missed**: 1 times as much"},
		{Goal{Below: 10}, 25, 0, "**missed**: 2.5 times as much"},
		{Goal{Times: 3}, 5, 3, "reached"},
		{Goal{Times: 3}, 5, 6, "**missed**: 2 times as much"},
	} {
		if got := c.goal.Judge(c.value, c.ratio); got != c.want {
			t.Errorf("%+v of %v, %v: got %q, want %q", c.goal, c.value, c.ratio, got, c.want)
		}
	}
}

func TestTheTableHasMediansRangesAndTheRatioOfEachRun(t *testing.T) {
	t.Parallel()
	run := func(value, raw float64) []Figure {
		return []Figure{
			{Name: "delivered", Unit: "events/s", Value: value, Raw: raw, Limit: "broker", Goal: Goal{AtLeast: 5000, Share: 0.4}},
			{Name: "memory", Unit: "MB", Value: value / 100},
		}
	}
	r := Report{Machine: "A machine.", Results: []Result{{Scenario: "ingest", Failed: []string{"a | b\nc"}}}}
	r.Put(Result{Scenario: "burst", Runs: [][]Figure{run(1, 1)}})
	r.Put(Result{
		Scenario: "burst", At: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Load: []float64{0.25, 1, 2},
		Runs: [][]Figure{run(3000, 10_000), run(1000, 2000), run(2000, 20_000)},
	})
	want := strings.Join([]string{
		"| **burst** | delivered | 2,000 events/s | 1,000 – 3,000 | 10,000 (broker) | 0.3 | at least 5,000 or 0.4 of the limit | **missed**: 75 % of it |",
		"|  | memory | 20 MB | 10 – 30 |  |  |  |  |",
		"| **ingest** | | | | | | | **failed**: a / b c |",
		"",
	}, "\n")
	if got := r.Table(); !strings.HasSuffix(got, "|---|\n"+want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if got := r.Document("performance.md", ""); !strings.Contains(got, "| 2026-01-02 03:04 | 3 | 0.2, 1.0, 2.0 |") || !strings.Contains(got, "\nA machine.\n") {
		t.Errorf("got\n%s", got)
	}
}

func TestWhatIsBelowTheMarkIsKept(t *testing.T) {
	t.Parallel()
	r := Report{Machine: "A machine."}
	first := r.Document("performance.md", "")
	edited := first + "\n## What limits it\n\nText of a person.\n"
	second := r.Document("performance.md", edited)
	if second != edited {
		t.Errorf("got\n%s\nwant\n%s", second, edited)
	}
	if third := r.Document("performance.md", second); third != second {
		t.Errorf("it changes when it is written once more:\n%s", third)
	}
}

func TestNumbersHaveThreeDigits(t *testing.T) {
	t.Parallel()
	for v, want := range map[float64]string{
		0: "0", 0.01234: "0.012", 0.5: "0.5", 1: "1", 1.2345: "1.23", 45.678: "45.7", 99.96: "100", 123.4: "123", 1234.5: "1,235", 1234567: "1,234,567",
	} {
		if got := number(v); got != want {
			t.Errorf("%v: got %s, want %s", v, got, want)
		}
	}
}
