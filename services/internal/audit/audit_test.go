package audit_test

import (
	"database/sql"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"

	"posthorn/events"
	"posthorn/migrations/pgtest"
	"posthorn/services/internal/audit"
	"posthorn/services/internal/eventlog"
	"posthorn/services/internal/ledger"
	"posthorn/services/internal/subscription"
)

func execute(t *testing.T, db *sql.DB, statement string, args ...any) {
	t.Helper()
	if _, err := db.ExecContext(t.Context(), statement, args...); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

// audited is a log with one subscription to everything and five events that
// were delivered to it; the relay is at the end.
func audited(t *testing.T) (*sql.DB, subscription.ID) {
	t.Helper()
	db := pgtest.New(t)
	s, err := subscription.Create(t.Context(), db, subscription.Subscription{
		ID: subscription.NewID(), Account: "default", URL: "http://example.com/", EventTypes: []events.Pattern{"#"}, Status: subscription.Active,
	})
	if err != nil {
		t.Fatal(err)
	}
	execute(t, db, `INSERT INTO posthorn.routes (subscription_id, account, event_types, status, since) VALUES ($1, 'default', '{#}', 'active', $2)`,
		s.ID.UUID(), s.Since)
	execute(t, db, `SELECT posthorn.append_event('A', id => 'e' || i) FROM generate_series(1, 5) i`)
	execute(t, db, `INSERT INTO posthorn.deliveries (position, subscription_id, event_id, status, attempts, finished_at)
		SELECT position, $1, id, 'delivered', 1, clock_timestamp() FROM posthorn.outbox WHERE kind = 'event'`, s.ID.UUID())
	execute(t, db, `INSERT INTO posthorn.attempts (position, subscription_id, number, cause, started_at, duration, status, error_class, next_step)
		SELECT position, $1, 1, 'live', clock_timestamp(), '1ms', 200, 'ok', 'delivered' FROM posthorn.outbox WHERE kind = 'event'`, s.ID.UUID())
	relayAtTheEnd(t, db)
	return db, s.ID
}

func relayAtTheEnd(t *testing.T, db *sql.DB) {
	t.Helper()
	execute(t, db, `UPDATE posthorn.readers SET position = posthorn.horizon() WHERE name = 'relay'`)
}

// runAudit returns the findings, as "problem event".
func runAudit(t *testing.T, db *sql.DB, o audit.Options) ([]string, audit.Report) {
	t.Helper()
	var found []string
	o.Found = func(f audit.Finding) error {
		found = append(found, fmt.Sprintf("%s %s", f.Problem, f.EventID))
		return nil
	}
	report, err := audit.Run(t.Context(), db, o)
	if err != nil {
		t.Fatal(err)
	}
	return found, report
}

func TestTypeMatchesInSQLAsInGo(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	random := rand.New(rand.NewPCG(1, 2))
	words := func(from []string) string {
		list := make([]string, 1+random.IntN(4))
		for i := range list {
			list[i] = from[random.IntN(len(from))]
		}
		return strings.Join(list, ".")
	}
	for range 3000 {
		pattern, eventType := words([]string{"a", "b", "a-_", "*", "#"}), words([]string{"a", "b", "a-_"})
		var got bool
		if err := db.QueryRowContext(t.Context(), `SELECT posthorn.type_matches($1, $2)`, pattern, eventType).Scan(&got); err != nil {
			t.Fatal(err)
		}
		if want := events.Pattern(pattern).Match(eventType); got != want {
			t.Errorf("type_matches(%q, %q) = %v, in Go %v", pattern, eventType, got, want)
		}
	}
}

func TestAuditFindsEachKindOfFault(t *testing.T) {
	t.Parallel()
	const row = ` WHERE event_id = 'e3'`
	for _, c := range []struct {
		name, fault string
		want        []string
	}{
		{"none", ``, nil},
		{"lost", `DELETE FROM posthorn.deliveries` + row, []string{"lost e3"}},
		{"overdue", `UPDATE posthorn.deliveries SET status = 'retrying', created_at = 'yesterday', next_attempt_at = 'yesterday'` + row, []string{"stuck e3"}},
		{"late", `UPDATE posthorn.deliveries SET status = 'retrying', created_at = 'yesterday', next_attempt_at = clock_timestamp() - interval '1 minute'` + row, nil},
		{"no next attempt", `UPDATE posthorn.deliveries SET status = 'pending', next_attempt_at = NULL` + row, []string{"stuck e3"}},
		{"unproven", `DELETE FROM posthorn.attempts a USING posthorn.deliveries d WHERE a.position = d.position AND d.event_id = 'e3'`, []string{"unproven e3"}},
		{
			"only a failed attempt", `UPDATE posthorn.attempts a SET error_class = 'status', status = 500 FROM posthorn.deliveries d
			WHERE a.position = d.position AND d.event_id = 'e3'`, []string{"unproven e3"},
		},
		{"misrouted", `UPDATE posthorn.outbox SET account = 'other' WHERE id = 'e3'`, []string{"misrouted e3"}},
		{"another event", `UPDATE posthorn.deliveries SET event_id = 'e9'` + row, []string{"unexpected e3"}},
		{
			"of nobody", `INSERT INTO posthorn.deliveries (position, subscription_id, event_id, status)
			SELECT position, gen_random_uuid(), event_id, 'dead' FROM posthorn.deliveries` + row, []string{"unexpected e3"},
		},
		{
			"before it was there", `UPDATE posthorn.outbox SET position = position + 350 WHERE kind = 'subscription'`,
			[]string{"unexpected e1", "unexpected e2", "unexpected e3"},
		},
		{
			"a replay from before it was there", `UPDATE posthorn.outbox SET position = position + 350 WHERE kind = 'subscription';
			UPDATE posthorn.deliveries SET cause = 'replay', run = 1; UPDATE posthorn.attempts SET run = 1`, nil,
		},
		{"no event", `DELETE FROM posthorn.outbox WHERE id = 'e3'`, []string{"unexpected "}},
		{
			"twice", `INSERT INTO posthorn.attempts (position, subscription_id, number, cause, started_at, duration, status, error_class, next_step)
			SELECT position, subscription_id, 2, 'live', clock_timestamp(), '1ms', 200, 'ok', 'delivered' FROM posthorn.deliveries` + row, []string{"duplicated e3"},
		},
		{
			"a test that got lost", `UPDATE posthorn.outbox SET kind = 'test', metadata = jsonb_build_object('subscription',
			(SELECT 'sub_' || id FROM posthorn.subscriptions)) WHERE id = 'e3'; DELETE FROM posthorn.deliveries` + row, []string{"lost e3"},
		},
		{
			"a test for another", `UPDATE posthorn.outbox SET kind = 'test', metadata = '{"subscription":"sub_x"}' WHERE id = 'e3';
			UPDATE posthorn.deliveries SET cause = 'test'` + row, []string{"unexpected e3"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			db, _ := audited(t)
			execute(t, db, `UPDATE posthorn.subscriptions SET updated_at = 'yesterday'`)
			// A gap between the positions, for the record to move into.
			execute(t, db, `UPDATE posthorn.outbox SET position = position * 100; UPDATE posthorn.deliveries SET position = position * 100;
				UPDATE posthorn.attempts SET position = position * 100; SELECT setval('posthorn.outbox_position', 1000)`)
			relayAtTheEnd(t, db)
			execute(t, db, c.fault+`;`)
			found, report := runAudit(t, db, audit.Options{Window: 170})
			if !slices.Equal(found, c.want) {
				t.Errorf("found %q, want %q; %+v", found, c.want, report)
			}
		})
	}
}

func TestAuditRepairsWhatIsLostAndThenFindsNothing(t *testing.T) {
	t.Parallel()
	db, id := audited(t)
	execute(t, db, `DELETE FROM posthorn.deliveries WHERE event_id IN ('e2', 'e4')`)
	execute(t, db, `UPDATE posthorn.deliveries SET status = 'pending', next_attempt_at = NULL, finished_at = NULL WHERE event_id = 'e1'`)
	_, report := runAudit(t, db, audit.Options{Repair: true})
	if report.Repaired != 3 {
		t.Errorf("repaired %d, want 3", report.Repaired)
	}
	// The sweeper's query.
	due, err := ledger.OverdueDeliveries(t.Context(), db, id, 0, 10)
	if err != nil || len(due) != 3 {
		t.Errorf("%d are due, %v, want 3", len(due), err)
	}
	if found, _ := runAudit(t, db, audit.Options{}); len(found) != 0 {
		t.Errorf("after the repair: %q", found)
	}
}

func TestAuditCancelsWhatIsLeftOfADeletedSubscription(t *testing.T) {
	t.Parallel()
	db, id := audited(t)
	execute(t, db, `DELETE FROM posthorn.deliveries WHERE event_id = 'e2'`)
	if _, err := subscription.Update(t.Context(), db, "default", id, func(s *subscription.Subscription) error {
		s.Status = subscription.Deleted
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	execute(t, db, `DELETE FROM posthorn.routes`)
	execute(t, db, `SELECT posthorn.append_event('A', id => 'later')`)
	relayAtTheEnd(t, db)
	if found, report := runAudit(t, db, audit.Options{Repair: true}); !slices.Equal(found, []string{"lost e2"}) || report.Repaired != 1 {
		t.Errorf("found %q, %+v", found, report)
	}
	if found, report := runAudit(t, db, audit.Options{}); len(found) != 0 || report.ByStatus[ledger.Cancelled] != 1 {
		t.Errorf("after the repair: %q, %+v", found, report)
	}
}

func TestAuditCountsWhatTheRelayHasNotComeTo(t *testing.T) {
	t.Parallel()
	db, _ := audited(t)
	execute(t, db, `SELECT posthorn.append_event('A') FROM generate_series(1, 3)`)
	found, report := runAudit(t, db, audit.Options{})
	if len(found) != 0 || report.Waiting != 3 || report.Events != 5 || report.Owed != 5 {
		t.Errorf("found %q, %+v", found, report)
	}
}

// The deliveries that the relay would owe, computed with Go's matching and none
// of the audit's code.
func TestAuditAgreesWithTheRelayOnAnyHistory(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	random := rand.New(rand.NewPCG(3, 4))
	patterns := []events.Pattern{"A", "B", "A.*", "#", "*.B", "A.#", "B.#.A"}
	types := []string{"A", "B", "A.B", "A.A", "B.A", "B.B.A", "C"}
	accounts := []string{"default", "other"}
	live := map[subscription.ID]subscription.Subscription{}
	ids := func() []subscription.ID { return slices.Sorted(maps.Keys(live)) }
	pick := func() (list []events.Pattern) {
		for _, i := range random.Perm(len(patterns))[:1+random.IntN(2)] {
			list = append(list, patterns[i])
		}
		return list
	}
	owed := 0
	for range 400 {
		switch n := random.IntN(10); {
		case n == 0:
			s, err := subscription.Create(t.Context(), db, subscription.Subscription{
				ID: subscription.NewID(), Account: accounts[random.IntN(2)], URL: "http://example.com/",
				EventTypes: pick(), Status: subscription.Active,
			})
			if err != nil {
				t.Fatal(err)
			}
			live[s.ID] = s
		case n == 1 && len(live) > 0:
			id := ids()[random.IntN(len(live))]
			s, err := subscription.Update(t.Context(), db, live[id].Account, id, func(s *subscription.Subscription) error {
				s.EventTypes = pick()
				s.Status = []subscription.Status{subscription.Active, subscription.Paused, subscription.Disabled, subscription.Deleted}[random.IntN(4)]
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			if live[id] = s; s.Status == subscription.Deleted {
				delete(live, id)
			}
		default:
			e := events.Event{Type: types[random.IntN(len(types))], Account: accounts[random.IntN(2)], ID: "e" + uuid.NewString()}
			appended, err := eventlog.AppendGroup(t.Context(), db, []events.Event{e})
			if err != nil || appended[0].Err != nil {
				t.Fatal(err, appended)
			}
			for id, s := range live {
				if s.Account == e.Account && s.Status.Owed() && s.Record().Matches(e.Type) {
					owed++
					execute(t, db, `INSERT INTO posthorn.deliveries (position, subscription_id, event_id, status) VALUES ($1, $2, $3, 'dead')`,
						appended[0].Position, id.UUID(), e.ID)
				}
			}
		}
	}
	relayAtTheEnd(t, db)
	found, report := runAudit(t, db, audit.Options{Window: 37})
	if len(found) != 0 || report.Owed != int64(owed) || report.Deliveries != int64(owed) || owed == 0 {
		t.Errorf("found %q, %+v, want %d owed", found, report, owed)
	}
}
