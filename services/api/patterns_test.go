package api_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

func TestPatternsAreKeptInTheirShortForm(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	hashes := strings.TrimSuffix(strings.Repeat("#.", 60), ".")
	sub := s.subscribe(`{"url":"http://example.com/","eventTypes":["` + hashes + `","#.*.#","a.b"]}`)
	var shown subscriptionBody
	s.do("GET", "/subscription/"+sub.ID, "").decode(&shown)
	if got := fmt.Sprint(shown.EventTypes); got != "[# *.# a.b]" {
		t.Errorf("event types %s", got)
	}
	s.do("PATCH", "/subscription/"+sub.ID, `{"eventTypes":["x.#.#"]}`).want(200).decode(&shown)
	if got := fmt.Sprint(shown.EventTypes); got != "[x.#]" {
		t.Errorf("event types %s after a change", got)
	}
}

func TestASubscriptionMayNameHundredsOfExactTypes(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	types := make([]string, 250)
	for i := range types {
		types[i] = fmt.Sprintf("order.line%d.changed", i)
	}
	list, err := json.Marshal(types)
	if err != nil {
		t.Fatal(err)
	}
	sub := s.subscribe(`{"url":"http://example.com/","eventTypes":` + string(list) + `}`)
	var shown subscriptionBody
	s.do("GET", "/subscription/"+sub.ID, "").decode(&shown)
	if len(shown.EventTypes) != len(types) {
		t.Errorf("%d event types, want %d", len(shown.EventTypes), len(types))
	}
}

// A subscription that is older than the limits can be read, paused and
// repaired, and no other can be given its patterns.
func TestPatternsFromBeforeTheLimitsAreHarmless(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	sub := s.subscribe(`{"url":"http://example.com/","eventTypes":["a"]}`)
	exec := func(query string) error {
		_, err := s.db.ExecContext(t.Context(), query)
		return err
	}
	old := `UPDATE posthorn.subscriptions SET event_types = '{#.#,#.a.#.a.#.a.#.z}'`
	if err := exec(old); err == nil || !strings.Contains(err.Error(), `"#.a.#.a.#.a.#.z"`) && !strings.Contains(err.Error(), `'#.a.#.a.#.a.#.z'`) {
		t.Fatalf("the schema accepts a pattern of four hashes: %v", err)
	}
	for _, query := range []string{
		`ALTER TABLE posthorn.subscriptions DISABLE TRIGGER subscriptions_event_types`, old,
		`ALTER TABLE posthorn.subscriptions ENABLE TRIGGER subscriptions_event_types`,
	} {
		if err := exec(query); err != nil {
			t.Fatal(err)
		}
	}
	path := "/subscription/" + sub.ID
	var shown subscriptionBody
	s.do("POST", path+"/pause", "").want(200).decode(&shown)
	if got := fmt.Sprint(shown.EventTypes); got != "[# #.a.#.a.#.a.#.z]" || shown.Status != "paused" {
		t.Errorf("event types %s, status %s", got, shown.Status)
	}
	s.do("PATCH", path, `{"eventTypes":["#.a.#.a.#.a.#.z"]}`).want(422)
	s.do("PATCH", path, `{"eventTypes":["#.a.#.z"]}`).want(200)
	s.do("DELETE", path, "").want(204)
}
