package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"posthorn/events"
	"posthorn/migrations/pgtest"
	"posthorn/services/internal/ledger"
	"posthorn/services/internal/postgres"
	"posthorn/services/internal/replay"
	"posthorn/services/internal/subscription"
)

// command runs a command line and returns what it printed.
func command(t *testing.T, args ...string) (code int, out, errOut string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	code = run(t.Context(), args, &stdout, &stderr)
	return code, stdout.String(), stderr.String()
}

func TestReplaysAndDeadLettersFromTheCommandLine(t *testing.T) {
	t.Parallel()
	url := pgtest.URL(t)
	db, err := postgres.Open(url, "test", 2)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	sub, err := subscription.Create(t.Context(), db, subscription.Subscription{
		ID: subscription.NewID(), Account: events.DefaultAccount, URL: "http://example.com", EventTypes: []events.Pattern{"E"},
		Status: subscription.Active, Timeout: time.Second, MaxInFlight: 1,
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.ExecContext(t.Context(), `
		WITH appended AS (INSERT INTO posthorn.outbox (id, type, data) SELECT 'e' || n, 'E', '{"n":1}' FROM generate_series(1, 3) n RETURNING position, id)
		INSERT INTO posthorn.deliveries (position, subscription_id, event_id, status, attempts, last_error, finished_at)
		SELECT position, $1, id, 'dead', 1, E'\u009b31mred', clock_timestamp() FROM appended`, sub.ID.UUID()); err != nil {
		t.Fatal(err)
	}
	at := "--database-url=" + url

	code, out, errOut := command(t, "replay", at, "--subscription", string(sub.ID), "--type", "E", "--dry-run")
	if code != 0 || !strings.HasPrefix(out, "3 events") || !strings.Contains(out, "\te1\t") {
		t.Errorf("dry run: %d %s %s", code, out, errOut)
	}
	code, out, errOut = command(t, "replay", at, "--subscription", string(sub.ID), "--from", "yesterday")
	if code != 2 || !strings.Contains(errOut, "--from") {
		t.Errorf("bad place: %d %s %s", code, out, errOut)
	}
	code, out, errOut = command(t, "replay", at, "--subscription", string(sub.ID), "--event", "e2", "--rate", "5")
	if code != 0 || !strings.HasPrefix(out, "rpl_") {
		t.Errorf("replay: %d %s %s", code, out, errOut)
	}
	list, err := replay.AllRunning(t.Context(), db)
	if err != nil || len(list) != 1 || len(list[0].Positions) != 1 || list[0].Rate != 5 {
		t.Errorf("running replays: %+v, %v", list, err)
	}

	id := string(list[0].ID)
	for _, step := range []struct {
		command string
		code    int
		status  string
	}{{"show", 0, "running"}, {"pause", 0, "paused"}, {"resume", 0, "running"}, {"cancel", 0, "cancelled"}, {"cancel", 0, "cancelled"}, {"resume", 1, ""}} {
		code, out, errOut = command(t, "replay", step.command, at, id)
		var r struct{ ID, Status string }
		if code != step.code || code == 0 && (json.Unmarshal([]byte(out), &r) != nil || r.Status != step.status || r.ID != id) ||
			code == 1 && !strings.Contains(errOut, "cancelled") {
			t.Errorf("%s: %d %s %s", step.command, code, out, errOut)
		}
	}
	for args, want := range map[string]int{"": 1, "--status cancelled": 1, "--status running": 0, "--subscription " + string(sub.ID): 1, "-n 0": 0} {
		code, out, errOut = command(t, append([]string{"replay", "list", at}, strings.Fields(args)...)...)
		if code != 0 || strings.Count(out, id) != want {
			t.Errorf("list %s: %d %s %s", args, code, out, errOut)
		}
	}
	code, _, errOut = command(t, "replay", "show", at, string(replay.NewID()))
	if code != 1 || !strings.Contains(errOut, "not found") {
		t.Errorf("an unknown replay: %d %s", code, errOut)
	}
	if code, _, errOut = command(t, "replay", at); code != 1 || !strings.Contains(errOut, "--subscription") {
		t.Errorf("a replay without a subscription: %d %s", code, errOut)
	}

	code, out, errOut = command(t, "dead-letters", "list", at, "--subscription", string(sub.ID))
	lines := strings.Split(strings.TrimSpace(out), "\n")
	var first struct{ ID, EventID string }
	if code != 0 || len(lines) != 3 || json.Unmarshal([]byte(lines[0]), &first) != nil || first.EventID != "e3" || strings.Contains(out, "\u009b") {
		t.Fatalf("list: %d %q %s", code, out, errOut)
	}
	code, out, errOut = command(t, "dead-letters", "show", at, first.ID)
	if code != 0 || !strings.Contains(out, `"body"`) {
		t.Errorf("show: %d %s %s", code, out, errOut)
	}
	code, out, errOut = command(t, "dead-letters", "purge", at, "--subscription", string(sub.ID))
	if code != 1 || !strings.Contains(errOut, "--confirm=3") {
		t.Errorf("purge without a count: %d %s %s", code, out, errOut)
	}
	code, out, errOut = command(t, "dead-letters", "show", at, first.ID, "--curl")
	if code != 0 || !strings.HasPrefix(out, "curl -i --globoff -X POST 'http://example.com' -H 'Content-Type: application/json'") || strings.Count(out, "\n") != 1 {
		t.Errorf("curl command: %d %s %s", code, out, errOut)
	}
	dead := make([]string, len(lines))
	for i, line := range lines {
		var d struct{ ID string }
		if err := json.Unmarshal([]byte(line), &d); err != nil {
			t.Fatal(err)
		}
		dead[i] = d.ID
	}
	code, _, errOut = command(t, "dead-letters", "redrive", at, dead[0], "dlv_99_"+sub.ID.UUID())
	if code != 1 || !strings.Contains(errOut, "dlv_99_") {
		t.Errorf("redrive of an unknown one: %d %s", code, errOut)
	}
	code, out, errOut = command(t, "dead-letters", "redrive", at, dead[0], dead[1], "--rate", "7")
	if code != 0 || !strings.HasPrefix(out, "rpl_") || strings.Count(out, "\n") != 1 {
		t.Errorf("redrive: %d %s %s", code, out, errOut)
	}
	list, err = replay.AllRunning(t.Context(), db)
	if err != nil || len(list) != 1 || len(list[0].Positions) != 2 || list[0].Rate != 7 || list[0].Cause != ledger.CauseRedrive {
		t.Errorf("running replays: %+v, %v", list, err)
	}
	code, out, errOut = command(t, "dead-letters", "purge", at, "--subscription", string(sub.ID), "--confirm", "3")
	if code != 0 || !strings.HasPrefix(out, "3 ") {
		t.Errorf("purge: %d %s %s", code, out, errOut)
	}
}
