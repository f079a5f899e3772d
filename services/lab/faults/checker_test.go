package faults_test

import (
	"strings"
	"testing"
	"time"

	"posthorn/services/lab/faults"
)

// sound is a correct run: two events, of which a wants both and b one.
func sound() (asked []faults.Accepted, arrivals []faults.Arrival, expected []faults.Expectation, delivered []faults.Pair) {
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for i, id := range []string{"1", "2"} {
		e := faults.Accepted{ID: id, Type: "T" + id, SHA256: "sum" + id, At: at}
		asked = append(asked, e)
		e.OK, e.Position = true, int64(i+1)
		asked = append(asked, e)
	}
	// An event that was sent and never accepted may have arrived or not.
	asked = append(asked, faults.Accepted{ID: "3", Type: "T1", SHA256: "sum3", At: at})
	arrive := func(subscriber, id string, status int) {
		arrivals = append(arrivals, faults.Arrival{
			Subscriber: subscriber, ID: id, Body: id, Type: "T" + id, SHA256: "sum" + id, Signed: true, Status: status,
			At: at.Add(time.Second), Answered: at.Add(2 * time.Second),
		})
	}
	arrive("a", "1", 500)
	arrive("a", "1", 200)
	arrive("a", "2", 200)
	arrive("b", "1", 200)
	expected = []faults.Expectation{{Subscriber: "a", Types: []string{"T1", "T2"}}, {Subscriber: "b", Types: []string{"T1"}}}
	delivered = []faults.Pair{{ID: "1", Subscriber: "a"}, {ID: "2", Subscriber: "a"}, {ID: "1", Subscriber: "b"}}
	return asked, arrivals, expected, delivered
}

func TestASoundRunPasses(t *testing.T) {
	t.Parallel()
	asked, arrivals, expected, delivered := sound()
	r := faults.Check(asked, arrivals, expected, delivered, time.Time{})
	if verdict := r.Verdict(0, time.Minute); verdict != "" {
		t.Error(verdict)
	}
	if r.Accepted != 2 || r.Expected != 3 || r.Requests != 4 {
		t.Errorf("%d accepted, %d expected, %d requests; want 2, 3 and 4", r.Accepted, r.Expected, r.Requests)
	}
}

func TestTheCheckerFindsEachFault(t *testing.T) {
	t.Parallel()
	type run struct {
		asked     []faults.Accepted
		arrivals  []faults.Arrival
		expected  []faults.Expectation
		delivered []faults.Pair
		faultEnd  time.Time
	}
	for name, test := range map[string]struct {
		spoil func(*run)
		want  string
	}{
		"an event that did not arrive":        {func(r *run) { r.arrivals = r.arrivals[:3]; r.delivered = r.delivered[:2] }, "1 lost"},
		"an event that was only refused":      {func(r *run) { r.arrivals[3].Status = 503; r.delivered = r.delivered[:2] }, "1 lost"},
		"an event whose answer was cut":       {func(r *run) { r.arrivals[3].Status = 0; r.delivered = r.delivered[:2] }, "1 lost"},
		"a request after a success":           {func(r *run) { r.arrivals = append(r.arrivals, r.arrivals[3]) }, "1 duplicated"},
		"an event that nobody produced":       {func(r *run) { r.arrivals = append(r.arrivals, faults.Arrival{Subscriber: "a", ID: "9"}) }, "1 unexpected"},
		"an empty request":                    {func(r *run) { r.arrivals = append(r.arrivals, faults.Arrival{Subscriber: "a"}) }, "1 unexpected"},
		"other data":                          {func(r *run) { r.arrivals[0].SHA256 = "other" }, "1 corrupted"},
		"another id in the body":              {func(r *run) { r.arrivals[0].Body = "2" }, "1 corrupted"},
		"another type":                        {func(r *run) { r.arrivals[0].Type = "T2" }, "1 corrupted"},
		"a signature that does not verify":    {func(r *run) { r.arrivals[0].Signed = false }, "1 corrupted"},
		"a type that was not subscribed":      {func(r *run) { a := r.arrivals[2]; a.Subscriber = "b"; r.arrivals = append(r.arrivals, a) }, "1 misrouted"},
		"a subscriber that nobody knows":      {func(r *run) { a := r.arrivals[2]; a.Subscriber = "c"; r.arrivals = append(r.arrivals, a) }, "1 misrouted"},
		"an event from before a subscription": {func(r *run) { r.expected[0].After = 1 }, "2 misrouted"},
		"an event from after it":              {func(r *run) { r.expected[0].Through = 1 }, "1 misrouted"},
		"a request after a deletion":          {func(r *run) { r.expected[1].NotAfter = r.arrivals[0].At.Add(-time.Millisecond) }, "1 late"},
		"a success that nobody gave":          {func(r *run) { r.delivered = append(r.delivered, faults.Pair{ID: "2", Subscriber: "b"}) }, "1 invented"},
		"a replay that did not come":          {func(r *run) { r.expected[1].Replays = []int64{1} }, "1 lost"},
		"a replay that came twice": {func(r *run) {
			r.expected[1].Replays = []int64{1}
			r.arrivals = append(r.arrivals, r.arrivals[3], r.arrivals[3])
		}, "1 duplicated"},
		"a replay of what was not to be replayed": {func(r *run) {
			r.expected[0].Replays = []int64{1}
			r.arrivals = append(r.arrivals, r.arrivals[1], r.arrivals[2])
		}, "1 duplicated"},
		"a recovery that takes too long": {func(r *run) {
			r.faultEnd = r.asked[0].At.Add(time.Second)
			r.arrivals[3].Answered = r.faultEnd.Add(time.Hour)
		}, "recovery took"},
		"a run without events": {func(r *run) { *r = run{expected: r.expected} }, "proves nothing"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var r run
			r.asked, r.arrivals, r.expected, r.delivered = sound()
			test.spoil(&r)
			verdict := faults.Check(r.asked, r.arrivals, r.expected, r.delivered, r.faultEnd).Verdict(0, time.Minute)
			if !strings.Contains(verdict, test.want) {
				t.Errorf("verdict %q, want %q", verdict, test.want)
			}
		})
	}
}

func TestADeletedSubscriberMayMissEvents(t *testing.T) {
	t.Parallel()
	asked, arrivals, expected, delivered := sound()
	expected[1].Optional = true
	if verdict := faults.Check(asked, arrivals[:3], expected, delivered[:2], time.Time{}).Verdict(0, time.Minute); verdict != "" {
		t.Error(verdict)
	}
}
