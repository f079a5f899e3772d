package e2e_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
)

// auditAnswer is the output of posthorn audit --json.
type auditAnswer struct {
	Clean    bool             `json:"clean"`
	Events   int64            `json:"events"`
	Owed     int64            `json:"owed"`
	Found    map[string]int64 `json:"found"`
	Repaired int64            `json:"repaired"`
	Findings []auditFinding   `json:"findings"`
}

type auditFinding struct {
	Problem  string `json:"problem"`
	Event    string `json:"event"`
	Repaired bool   `json:"repaired"`
}

// audit runs posthorn audit to its end.
func (s *system) audit(flags ...string) (code int, answer auditAnswer, errOut string) {
	s.t.Helper()
	p := launch(s.t, s.dbURL, append([]string{"audit", "--json"}, flags...)...)
	code = p.exitCode(s.t)
	if out := strings.Join(p.printed(), ""); out != "" {
		if err := json.Unmarshal([]byte(out), &answer); err != nil {
			s.t.Fatalf("%s: %v", out, err)
		}
	}
	return code, answer, p.stderr.String()
}

func TestAnAuditRepairsAndSetsItsExitCode(t *testing.T) {
	t.Parallel()
	s := startSystem(t)
	r := newSubscriber(t, nil)
	sub := s.subscribe(r.URL, nil, "E")
	ids := s.post("E", 200)
	s.arrived(sub.ID, r, 1, ids)

	code, answer, errOut := s.audit()
	if code != 0 || !answer.Clean || answer.Owed != 200 || answer.Events != 200 || errOut != "" {
		t.Errorf("a clean log: exit code %d, %+v, %s", code, answer, errOut)
	}
	code, answer, errOut = s.audit("--from", "50", "--to", "59", "--progress-every", "0s")
	if code != 0 || answer.Owed != 10 || errOut != "audited up to position 59 of 59\n" {
		t.Errorf("a part of it: exit code %d, %+v, %s", code, answer, errOut)
	}
	if code, answer, _ = s.audit("--to", "2001-01-01T00:00:00Z"); code != 0 || answer.Owed != 0 {
		t.Errorf("nothing of it: exit code %d, %+v", code, answer)
	}

	if _, err := s.db.ExecContext(t.Context(), `DELETE FROM posthorn.deliveries WHERE event_id IN ($1, $2, $3)`, ids[3], ids[70], ids[199]); err != nil {
		t.Fatal(err)
	}
	code, answer, _ = s.audit()
	if code != 3 || answer.Clean || answer.Found["lost"] != 3 || answer.Repaired != 0 || len(answer.Findings) != 3 {
		t.Errorf("three are lost: exit code %d, %+v", code, answer)
	}
	if n := s.ledger(sub.ID)["delivered"]; n != 197 {
		t.Errorf("an audit without --repair changed the ledger: %d are delivered", n)
	}
	code, answer, _ = s.audit("--repair")
	if code != 3 || answer.Found["lost"] != 3 || answer.Repaired != 3 ||
		slices.ContainsFunc(answer.Findings, func(f auditFinding) bool { return !f.Repaired }) {
		t.Errorf("repair: exit code %d, %+v", code, answer)
	}
	// Repaired deliveries are sent; these had arrived before the ledger lost them.
	eventually(t, patience, "the repaired ones are delivered", func() bool { return s.ledger(sub.ID)["delivered"] == 200 })
	want := map[string]int{ids[3]: 2, ids[70]: 2, ids[199]: 2}
	for id, n := range r.times() {
		if n != max(want[id], 1) {
			t.Errorf("event %s arrived %d times", id, n)
		}
	}
	if code, answer, _ = s.audit(); code != 0 || answer.Found["duplicated"] != 3 {
		t.Errorf("after the repair: exit code %d, %+v", code, answer)
	}
	if code, _, _ = s.audit("--strict"); code != 3 {
		t.Errorf("strictly: exit code %d, want 3", code)
	}
}

func TestAnAuditThatFailsIsNotClean(t *testing.T) {
	t.Parallel()
	s := newSystem(t, "")
	s.startAPI()
	if code, _, errOut := s.audit("--from", "yesterday"); code != 2 || !strings.Contains(errOut, "--from") {
		t.Errorf("a wrong flag: exit code %d, %s", code, errOut)
	}
	there := s.dbURL
	s.dbURL = "postgres://nobody:x@" + freeAddr(t) + "/none?sslmode=disable"
	if code, answer, errOut := s.audit(); code != 1 || answer.Clean || !strings.Contains(errOut, "unavailable") {
		t.Errorf("no database: exit code %d, %+v, %s", code, answer, errOut)
	}
	s.dbURL = there

	// Stopped in the middle, while a lock holds up the ledger.
	s.subscribe("http://example.com/", nil, "E")
	s.post("E", 1)
	if _, err := s.db.ExecContext(t.Context(), `UPDATE posthorn.readers SET position = posthorn.horizon() WHERE name = 'relay'`); err != nil {
		t.Fatal(err)
	}
	tx, err := s.db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback() }()
	if _, err := tx.ExecContext(t.Context(), `LOCK TABLE posthorn.deliveries IN ACCESS EXCLUSIVE MODE`); err != nil {
		t.Fatal(err)
	}
	p := launch(t, s.dbURL, "audit")
	eventually(t, patience, "the audit waits", func() bool {
		var waiting bool
		err := s.db.QueryRowContext(t.Context(), `
			SELECT EXISTS (SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'posthorn audit' AND wait_event_type = 'Lock')`).
			Scan(&waiting)
		return err == nil && waiting
	})
	p.interrupt(t)
	if code := p.exitCode(t); code != 1 || !strings.Contains(p.stderr.String(), "stopped before the end") {
		t.Errorf("interrupted: exit code %d, %s", code, p.stderr.String())
	}
}
