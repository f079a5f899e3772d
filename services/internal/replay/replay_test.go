package replay_test

import (
	"database/sql"
	"errors"
	"testing"
	"time"

	"posthorn/events"
	"posthorn/migrations/pgtest"
	"posthorn/services/internal/eventlog"
	"posthorn/services/internal/ledger"
	"posthorn/services/internal/postgres"
	"posthorn/services/internal/replay"
	"posthorn/services/internal/subscription"
)

// delivered prepares a subscription with three deliveries at positions 2 to 4.
func delivered(t *testing.T, db *sql.DB) subscription.ID {
	t.Helper()
	s, err := subscription.Create(t.Context(), db, subscription.Subscription{
		ID: subscription.NewID(), Account: events.DefaultAccount, URL: "http://example.com", EventTypes: []events.Pattern{"E.*", "F.#"},
		Status: subscription.Active, Timeout: time.Second, MaxInFlight: 1,
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, statement := range []string{
		`INSERT INTO posthorn.outbox (id, type, data) SELECT 'e' || n, (ARRAY['E.a', 'F', 'F.a.b', 'E', 'E.a.b'])[n], '{}' FROM generate_series(1, 5) n`,
		`INSERT INTO posthorn.routes (subscription_id, account, event_types, status, since)
		 SELECT id, account, event_types, status, since FROM posthorn.subscriptions`,
		`UPDATE posthorn.readers SET position = 4 WHERE name = 'relay'`,
		`INSERT INTO posthorn.deliveries (position, subscription_id, event_id, status, attempts, finished_at)
		 SELECT o.position, s.id, o.id, 'delivered', 1, clock_timestamp()
		 FROM posthorn.outbox o, posthorn.subscriptions s WHERE o.id IN ('e1', 'e2', 'e3')`,
	} {
		if _, err := db.ExecContext(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	return s.ID
}

func step(t *testing.T, db *sql.DB, id replay.ID, rows int) replay.Step {
	t.Helper()
	s, err := replay.TakeStep(t.Context(), db, id, rows)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestAReplayBeginsRunsAndMakesEarlierMessagesStale(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	sub := delivered(t, db)
	r, err := replay.Create(t.Context(), db, replay.Selection{Account: events.DefaultAccount, Subscription: sub, Cause: ledger.CauseReplay})
	if err != nil {
		t.Fatal(err)
	}
	first := step(t, db, r.ID, 2)
	if len(first.Due) != 2 || first.Due[0].ID != "e1" || first.Due[1].ID != "e2" || first.Due[0].Run != 1 || first.Position != 3 {
		t.Fatalf("first step = %+v, want the first two in their run 1", first)
	}
	// It does not pass the relay's position.
	second := step(t, db, r.ID, 10)
	if len(second.Due) != 1 || second.Position != 4 || second.Status != replay.Running {
		t.Errorf("second step = %+v, want the third delivery, and more to come", second)
	}
	if waiting := step(t, db, r.ID, 10); !waiting.Waiting || len(waiting.Due) != 0 {
		t.Errorf("step = %+v, want it to wait for the relay", waiting)
	}
	if _, err := db.ExecContext(t.Context(), `UPDATE posthorn.readers SET position = 6 WHERE name = 'relay'`); err != nil {
		t.Fatal(err)
	}
	if done := step(t, db, r.ID, 10); done.Status != replay.Done || done.Sent != 3 {
		t.Errorf("last step = %+v, want it done, with nothing of what does not match", done)
	}
	// A message of run 0, whatever it claims, is dropped; that of run 1 is due.
	claim := func(run, attempts int) bool {
		t.Helper()
		answers, err := ledger.ClaimAttempts(t.Context(), db, []ledger.Claim{{
			Position: 2, Subscription: sub, EventID: "e1", Cause: "live", Run: run, Attempts: attempts, For: time.Minute,
		}})
		if err != nil {
			t.Fatal(err)
		}
		return answers[0].OK
	}
	if claim(0, 0) || claim(0, 1) || !claim(1, 0) {
		t.Error("want only the message of the present run to be due")
	}
	// While they are under way another replay leaves them alone.
	again, err := replay.Create(t.Context(), db, replay.Selection{Account: events.DefaultAccount, Subscription: sub, Cause: ledger.CauseReplay})
	if err != nil {
		t.Fatal(err)
	}
	if s := step(t, db, again.ID, 10); len(s.Due) != 0 || s.Skipped != 3 || s.Status != replay.Done {
		t.Errorf("another replay = %+v, want all skipped", s)
	}
}

func TestAReplayWaitsForItsSubscriptionAndEndsWithIt(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	sub := delivered(t, db)
	selection := replay.Selection{Account: events.DefaultAccount, Subscription: sub, Cause: ledger.CauseReplay}
	r, err := replay.Create(t.Context(), db, selection)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.ExecContext(t.Context(), `DELETE FROM posthorn.routes`); err != nil {
		t.Fatal(err)
	}
	if s := step(t, db, r.ID, 10); !s.Waiting {
		t.Errorf("step = %+v, want it to wait for the route", s)
	}
	if _, err := subscription.Update(t.Context(), db, events.DefaultAccount, sub, func(s *subscription.Subscription) error {
		s.Status = subscription.Deleted
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if s := step(t, db, r.ID, 10); s.Status != replay.Cancelled || len(s.Due) != 0 {
		t.Errorf("step = %+v, want it cancelled", s)
	}
	if _, err := replay.Create(t.Context(), db, selection); !errors.Is(err, postgres.ErrNotFound) {
		t.Errorf("replay to a deleted subscription: %v, want ErrNotFound", err)
	}
	if _, err := replay.SetStatus(t.Context(), db, events.DefaultAccount, r.ID, replay.Running); !errors.Is(err, postgres.ErrState) {
		t.Errorf("resume of a cancelled replay: %v, want ErrState", err)
	}
}

func TestPlacesInTheLogAreReadAsPeopleWriteThem(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 1, 31, 8, 0, 0, 0, time.UTC)
	for text, want := range map[string]eventlog.Place{
		"": {}, "17": {Position: 17}, "0": {Beginning: true}, "beginning": {Beginning: true}, "now": {Now: true}, "2026-01-31T08:00:00Z": {Time: at},
	} {
		if got, err := eventlog.ParsePlace(text); err != nil || got != want {
			t.Errorf("ParsePlace(%q) = %+v, %v, want %+v", text, got, err, want)
		}
	}
	for _, text := range []string{"-1", "yesterday", "2026-01-31", "1.5", "99999999999999999999"} {
		if _, err := eventlog.ParsePlace(text); !errors.Is(err, eventlog.ErrBadPlace) {
			t.Errorf("ParsePlace(%q): %v, want ErrBadPlace", text, err)
		}
	}
}
