package relay

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"posthorn/events"
	"posthorn/services/internal/eventlog"
	"posthorn/services/internal/subscription"
)

func route(account string, status subscription.Status, types ...events.Pattern) Route {
	return Route{ID: subscription.NewID(), Account: account, Status: status, EventTypes: types}
}

func TestRoutesMatchEachSubscriptionOnceAndFollowChanges(t *testing.T) {
	t.Parallel()
	exact := route("default", subscription.Active, "a.b")
	overlapping := route("default", subscription.Active, "a.*", "a.b", "#")
	paused := route("default", subscription.Paused, "a.#")
	disabled := route("default", subscription.Disabled, "#")
	foreign := route("other", subscription.Active, "#")
	r := newRoutes([]Route{exact, overlapping, paused, disabled, foreign})

	check := func(account, eventType string, want ...Route) {
		t.Helper()
		ids := map[subscription.ID]int{}
		for _, route := range want {
			ids[route.ID]++
		}
		got := map[subscription.ID]int{}
		for id := range r.match(account, eventType).all() {
			got[id]++
		}
		if diff := cmp.Diff(ids, got); diff != "" {
			t.Errorf("match(%s, %s) (-want +got):\n%s", account, eventType, diff)
		}
	}
	check("default", "a.b", exact, overlapping, paused)
	check("default", "a", overlapping, paused)
	check("default", "c", overlapping)
	check("other", "a.b", foreign)

	// Earlier answers must not be cached across a change.
	disabled.Status = subscription.Active
	r.set(disabled)
	check("default", "a.b", exact, overlapping, paused, disabled)
	exact.Status = subscription.Deleted
	r.set(exact)
	check("default", "a.b", overlapping, paused, disabled)
	overlapping.EventTypes = []events.Pattern{"c"}
	r.set(overlapping)
	check("default", "a.b", paused, disabled)
	check("default", "c", overlapping, disabled)
	if r.len() != 4 {
		t.Errorf("%d routes, want 4", r.len())
	}
	if diff := cmp.Diff([]string{"default", "other"}, r.accountNames()); diff != "" {
		t.Errorf("accounts (-want +got):\n%s", diff)
	}
}

func TestOnlyOwedSubscriptionsHaveBoundPatterns(t *testing.T) {
	t.Parallel()
	for status, want := range map[subscription.Status][]string{
		subscription.Active: {"a", "b.#"}, subscription.Paused: {"a", "b.#"}, subscription.Disabled: nil,
	} {
		if diff := cmp.Diff(want, bound(route("default", status, "a", "b.#"))); diff != "" {
			t.Errorf("bound of %s (-want +got):\n%s", status, diff)
		}
	}
	// Subscriptions with unbindable patterns are addressed.
	for pattern, want := range map[events.Pattern]bool{
		"a.b.c": true, "#": true, "a.#": true, "#.a": true, "a.#.b": true, "*.*": true, "a.*.b.*": true, "*.a.#": true,
		"*.*.*": false, "#.*": false, "*.#.a": false, "#.a.#": false, "a.*.*.#": false,
		"#.#": false, "#.a.#.b.#": false, "a..b": false, "": false,
	} {
		addressed := route("default", subscription.Active, "x", pattern)
		to := newRoutes([]Route{addressed}).match("default", "x")
		if len(to.bound) != 0 != want || len(to.bound)+len(to.addressed) != 1 {
			t.Errorf("%q: bound %v, addressed %v", pattern, to.bound, to.addressed)
		}
		if got := stale(addressed); (len(got) == 0) != want {
			t.Errorf("%q: stale %v", pattern, got)
		}
	}
	if diff := cmp.Diff([]string{"b"}, without([]string{"a", "b"}, []string{"a", "c"})); diff != "" {
		t.Errorf("without (-want +got):\n%s", diff)
	}
}

func TestEarlyBindingsAreThoseOfLaterRecordsOnly(t *testing.T) {
	t.Parallel()
	known, fresh := route("default", subscription.Active, "a", "b.*"), route("default", subscription.Active, "a")
	disabled := route("default", subscription.Disabled, "a")
	record := func(route Route, status subscription.Status, types ...events.Pattern) eventlog.Record {
		data, err := subscription.Record{ID: route.ID, Account: route.Account, EventTypes: types, Status: status}.Encode()
		if err != nil {
			t.Fatal(err)
		}
		return eventlog.Record{Kind: eventlog.KindSubscription, Event: events.Event{Account: route.Account, Subject: string(route.ID), Data: data}}
	}
	long := events.Pattern(strings.Repeat("long.", 60) + "x")
	for name, c := range map[string]struct {
		record eventlog.Record
		want   []string
	}{
		"an event":                   {eventlog.Record{Kind: eventlog.KindEvent}, nil},
		"what cannot be read":        {eventlog.Record{Kind: eventlog.KindSubscription, Event: events.Event{Data: []byte(`{"`)}}, nil},
		"created":                    {record(fresh, subscription.Active, "a", "c.#"), []string{"a", "c.#"}},
		"created, without a name":    {record(fresh, subscription.Active, long), nil},
		"changed":                    {record(known, subscription.Active, "a", "c"), []string{"c"}},
		"as it is":                   {record(known, subscription.Paused, "b.*", "a"), nil},
		"deleted":                    {record(known, subscription.Deleted), nil},
		"enabled":                    {record(disabled, subscription.Active, "a"), []string{"a"}},
		"bound by the one before us": {record(known, subscription.Disabled, "d"), []string{"d"}},
	} {
		got := newRoutes([]Route{known, disabled}).boundEarly([]eventlog.Record{c.record})
		var patterns []string
		for _, b := range got {
			patterns = append(patterns, b.patterns...)
		}
		if diff := cmp.Diff(c.want, patterns); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}
