package e2e_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"posthorn/services/internal/postgres"
	"posthorn/services/internal/retry"
)

// explain runs posthorn explain and returns the reason or the status for each
// subscription, by its name in the test.
func (s *system) explain(event string, names map[string]string) map[string]string {
	s.t.Helper()
	p := launch(s.t, s.dbURL, "explain", "--json", event)
	if code := p.exitCode(s.t); code != 0 {
		s.t.Fatalf("explain: exit code %d, %s", code, p.stderr.String())
	}
	var answer struct {
		Subscriptions []struct {
			Subscription, Reason, Status string
			Delivery                     bool
			Attempts, LastStatus         int
		} `json:"subscriptions"`
	}
	if err := json.Unmarshal([]byte(strings.Join(p.printed(), "")), &answer); err != nil {
		s.t.Fatal(err)
	}
	got := map[string]string{}
	for _, x := range answer.Subscriptions {
		if x.Delivery != (x.Reason == "") {
			s.t.Errorf("%+v has both a delivery and a reason, or neither", x)
		}
		got[names[x.Subscription]] = x.Reason + x.Status
	}
	return got
}

func TestExplainHasAReasonForEachSubscription(t *testing.T) {
	t.Parallel()
	s := newSystem(t, "")
	s.startAPI()
	stopRelay := s.startRelay()
	s.startDelivery(retry.Schedule{})
	good, bad := newSubscriber(t, nil), newSubscriber(t, func(int, *http.Request) int { return http.StatusTeapot })
	names, ids := map[string]string{}, map[string]string{}
	subscribe := func(name, url string, types ...string) {
		ids[name] = s.subscribe(url, nil, types...).ID
		names[ids[name]] = name
	}
	subscribe("matching", good.URL, "E.#")
	subscribe("failing", bad.URL, "E.A")
	subscribe("of another type", good.URL, "F", "E.*.*")
	subscribe("disabled", good.URL, "E.A")
	subscribe("deleted", good.URL, "E.A")
	subscribe("paused", good.URL, "E.A")
	subscribe("robbed", good.URL, "E.A")
	s.must(http.MethodPatch, "/subscription/"+ids["disabled"], map[string]any{"status": "disabled"}, nil)
	s.must(http.MethodDelete, "/subscription/"+ids["deleted"], nil, nil)
	s.must(http.MethodPost, "/subscription/"+ids["paused"]+"/pause", nil, nil)
	event := s.post("E.A", 1)[0]
	subscribe("later", good.URL, "E.A")
	// Later changes to a subscription do not affect the explanation.
	s.must(http.MethodPatch, "/subscription/"+ids["of another type"], map[string]any{"eventTypes": []string{"E.A"}}, nil)
	s.must(http.MethodPatch, "/subscription/"+ids["disabled"], map[string]any{"status": "active"}, nil)
	eventually(t, patience, "it is settled", func() bool {
		return s.ledger(ids["matching"])["delivered"] == 1 && s.ledger(ids["failing"])["dead"] == 1 && s.ledger(ids["robbed"])["delivered"] == 1
	})
	if _, err := s.db.ExecContext(t.Context(), `DELETE FROM posthorn.deliveries WHERE subscription_id = $1::uuid`,
		strings.TrimPrefix(ids["robbed"], "sub_")); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"matching": "delivered", "failing": "dead", "of another type": "type", "disabled": "disabled", "deleted": "deleted", "paused": "pending",
		"robbed": "missing", "later": "createdLater",
	}
	if diff := cmp.Diff(want, s.explain(event, names)); diff != "" {
		t.Errorf("the event (-want +got):\n%s", diff)
	}
	// Also in words.
	p := launch(t, s.dbURL, "explain", event)
	text := ""
	if code := p.exitCode(t); code == 0 {
		text = strings.Join(p.printed(), "\n")
	}
	for name, words := range map[string]string{
		"matching": "delivered after 1 attempts (live), last status 200", "failing": "dead after 1 attempts (live), last status 418",
		"of another type": "no delivery: none of its event types matched", "disabled": "no delivery: it was disabled",
		"deleted": "no delivery: it was deleted", "paused": "pending after 0 attempts", "robbed": "audit --repair", "later": "created after",
	} {
		if !strings.Contains(text, ids[name]+": ") || !strings.Contains(text, words) {
			t.Errorf("%s: %q is not in\n%s", name, words, text)
		}
	}

	// A test event is for one subscription only.
	var test struct{ ID string }
	s.must(http.MethodPost, "/subscription/"+ids["matching"]+"/test", nil, &test)
	eventually(t, patience, "the test event arrives", func() bool { return s.ledger(ids["matching"])["delivered"] == 2 })
	got := s.explain(test.ID, names)
	if got["matching"] != "delivered" || got["later"] != "test" || got["paused"] != "test" {
		t.Errorf("the test event: %v", got)
	}

	// While no relay runs.
	stopRelay()
	waiting := s.post("E.A", 1)[0]
	got = s.explain(waiting, names)
	if got["matching"] != "notRelayedYet" || got["deleted"] != "deleted" {
		t.Errorf("an event that waits for the relay: %v", got)
	}
	if p := launch(t, s.dbURL, "explain", "evt_none"); p.exitCode(t) != 1 || !strings.Contains(p.stderr.String(), postgres.ErrNotFound.Error()) {
		t.Errorf("an event that does not exist: %s", p.stderr.String())
	}
}
