package faults

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Expectation describes the events that a subscriber is owed.
type Expectation struct {
	Subscriber string
	// Types are the event types that it subscribed to.
	Types []string
	// After and Through bound the owed positions; 0 means no bound.
	After, Through int64
	// Replays are the last positions of replays: each delivers the events up to
	// there once more.
	Replays []int64
	// Optional: owed events may be missing, as after a deletion.
	Optional bool
	// NotAfter is the time from which no request may reach it; zero means none.
	NotAfter time.Time
}

func (e Expectation) owed(a Accepted) bool {
	return slices.Contains(e.Types, a.Type) && a.Position > e.After && (e.Through == 0 || a.Position <= e.Through)
}

// times returns how often an owed event has to arrive.
func (e Expectation) times(a Accepted) int {
	n := 1
	for _, through := range e.Replays {
		if a.Position <= through {
			n++
		}
	}
	return n
}

// Pair is an event and a subscriber.
type Pair struct{ ID, Subscriber string }

// Report is the result of Check. All lists except Duplicated have to be empty.
type Report struct {
	Accepted int // events
	Expected int // events for a subscriber
	Requests int // that arrived

	Lost       []Pair // accepted and owed, but not answered with 2xx as often as owed
	Duplicated []Pair // one for each request after that
	Unexpected []Pair // never sent by the producer, or without an id
	Corrupted  []Pair // other data, another id in the body, or a signature that does not verify
	Misrouted  []Pair // to a subscriber that is not owed it
	Late       []Pair // to a subscriber that is gone
	Invented   []Pair // delivered according to the ledger, but never answered with 2xx
	Unfinished int    // deliveries that are not finished in the ledger

	// Recovery is the time from the end of the fault to the delivery of the
	// last event that was accepted before it.
	Recovery time.Duration
}

// Check compares the accepted events, the arrivals and the deliveries in the
// ledger. asked are all lines of the producer's file. A zero faultEnd means
// that there is no recovery to measure.
func Check(asked []Accepted, arrivals []Arrival, expected []Expectation, delivered []Pair, faultEnd time.Time) Report {
	var r Report
	known := map[string]Accepted{}
	for _, a := range asked {
		if a.OK {
			r.Accepted++
		}
		if old, ok := known[a.ID]; !ok || !old.OK {
			known[a.ID] = a
		}
	}
	wants := map[string]Expectation{}
	for _, e := range expected {
		wants[e.Subscriber] = e
	}
	arrivals = slices.SortedStableFunc(slices.Values(arrivals), func(a, b Arrival) int { return a.Answered.Compare(b.Answered) })
	r.Requests = len(arrivals)
	first, taken := map[Pair]time.Time{}, map[Pair]int{}
	for _, a := range arrivals {
		pair := Pair{a.ID, a.Subscriber}
		e, asked := known[a.ID]
		want, subscribed := wants[a.Subscriber]
		switch {
		case a.ID == "" || !asked:
			r.Unexpected = append(r.Unexpected, pair)
			continue
		case a.Body != a.ID || a.SHA256 != e.SHA256 || a.Type != e.Type || !a.Signed:
			r.Corrupted = append(r.Corrupted, pair)
			continue
		case !subscribed || !slices.Contains(want.Types, a.Type) || e.OK && !want.owed(e):
			r.Misrouted = append(r.Misrouted, pair)
			continue
		}
		if !want.NotAfter.IsZero() && a.At.After(want.NotAfter) {
			r.Late = append(r.Late, pair)
		}
		switch {
		case taken[pair] == want.times(e):
			r.Duplicated = append(r.Duplicated, pair)
		case a.Status/100 == 2:
			if taken[pair]++; taken[pair] == 1 {
				first[pair] = a.Answered
			}
		}
	}
	for _, e := range expected {
		for _, a := range known {
			if !a.OK || !e.owed(a) {
				continue
			}
			r.Expected++
			pair := Pair{a.ID, e.Subscriber}
			at, arrived := first[pair]
			switch {
			case taken[pair] < e.times(a) && !e.Optional:
				r.Lost = append(r.Lost, pair)
			case arrived && !faultEnd.IsZero() && a.At.Before(faultEnd):
				r.Recovery = max(r.Recovery, at.Sub(faultEnd))
			}
		}
	}
	for _, pair := range delivered {
		if _, ok := first[pair]; !ok {
			r.Invented = append(r.Invented, pair)
		}
	}
	return r
}

// Verdict is empty if the report passes. bound is how many duplicates the fault
// explains, within the maximum recovery.
func (r Report) Verdict(bound int, within time.Duration) string {
	var wrong []string
	for _, finding := range []struct {
		name  string
		pairs []Pair
	}{
		{"lost", r.Lost},
		{"unexpected", r.Unexpected},
		{"corrupted", r.Corrupted},
		{"misrouted", r.Misrouted},
		{"late", r.Late},
		{"invented", r.Invented},
	} {
		if n := len(finding.pairs); n > 0 {
			wrong = append(wrong, fmt.Sprintf("%d %s (such as %v)", n, finding.name, finding.pairs[0]))
		}
	}
	if n := len(r.Duplicated); n > bound {
		wrong = append(wrong, fmt.Sprintf("%d duplicated, more than %d (such as %v)", n, bound, r.Duplicated[0]))
	}
	if r.Unfinished > 0 {
		wrong = append(wrong, fmt.Sprintf("%d deliveries have not ended", r.Unfinished))
	}
	if r.Recovery > within {
		wrong = append(wrong, fmt.Sprintf("recovery took %v, more than %v", r.Recovery.Round(time.Second), within))
	}
	if r.Accepted == 0 || r.Expected == 0 {
		wrong = append(wrong, "nothing was accepted: the scenario proves nothing")
	}
	return strings.Join(wrong, "; ")
}
