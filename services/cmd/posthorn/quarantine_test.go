package main

import (
	"encoding/json"
	"strings"
	"testing"

	"posthorn/migrations/pgtest"
	"posthorn/services/internal/eventlog"
	"posthorn/services/internal/postgres"
)

func TestTheQuarantineFromTheCommandLine(t *testing.T) {
	t.Parallel()
	url := pgtest.URL(t)
	db, err := postgres.Open(url, "test", 2)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	if _, err := db.ExecContext(t.Context(), `
		ALTER TABLE posthorn.outbox DROP CONSTRAINT outbox_type_check;
		INSERT INTO posthorn.outbox (id, type, data) VALUES ('a', E'\u009b31mred', '{}'), ('b', '', '{}');
		INSERT INTO posthorn.quarantine (position, kind, account, event_id, reason, status)
		SELECT position, kind, account, id, E'type: \u009b31mred', 'held' FROM posthorn.outbox;
		UPDATE posthorn.readers SET position = 2 WHERE name = 'relay'`); err != nil {
		t.Fatal(err)
	}
	at := "--database-url=" + url
	check := func(code int, want string, args ...string) string {
		t.Helper()
		got, out, errOut := command(t, append(args, at)...)
		if got != code || !strings.Contains(out+errOut, want) {
			t.Errorf("%v: %d, %q, %q, want %d and %q", args, got, out, errOut, code, want)
		}
		if strings.ContainsRune(out+errOut, '\u009b') {
			t.Errorf("%v: a control character reaches the terminal: %q", args, out+errOut)
		}
		return out
	}

	check(0, `position 1, event "a" of account "default", held since`, "outbox", "quarantine", "list")
	lines := strings.Split(strings.TrimSpace(check(0, `"event":"b"`, "outbox", "quarantine", "list", "--json")), "\n")
	var first quarantined
	if err := json.Unmarshal([]byte(lines[0]), &first); err != nil || len(lines) != 2 || first.Position != 1 || first.Status != eventlog.Held {
		t.Errorf("%d lines, first %+v, %v", len(lines), first, err)
	}
	check(0, `set aside, held: "type: `, "explain", "a")
	check(0, `"quarantine":"held"`, "explain", "--json", "b")
	check(3, "quarantined 2", "audit", "--quiet")

	check(1, "position 1: record cannot be forwarded: type: want words", "outbox", "quarantine", "retry", "1")
	check(0, "position 1: dropped", "outbox", "quarantine", "drop", "1")
	check(1, "position 1", "outbox", "quarantine", "drop", "1")
	check(1, "position 7: not found", "outbox", "quarantine", "retry", "7")
	if _, err := db.ExecContext(t.Context(), `UPDATE posthorn.outbox SET type = 'A' WHERE position = 2`); err != nil {
		t.Fatal(err)
	}
	check(0, "position 2: released", "outbox", "quarantine", "retry", "2")
	check(0, "no records are in quarantine", "outbox", "quarantine", "list")
	check(0, "dropped", "outbox", "quarantine", "list", "--all")
	check(0, "clean", "audit", "--quiet")
}
