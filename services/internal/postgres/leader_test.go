package postgres_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"posthorn/migrations/pgtest"
	"posthorn/services/internal/postgres"
)

// lead acquires the leadership under a name, to be lost after a time without a statement.
func lead(t *testing.T, url, name string, lease string) *postgres.Lead {
	t.Helper()
	db, err := postgres.Open(url, name, 2)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	l, err := postgres.TryLead(t.Context(), db, name)
	if err != nil || l == nil {
		t.Fatalf("no lead: %v", err)
	}
	t.Cleanup(func() { _ = l.Release() })
	if _, err := l.Conn().ExecContext(t.Context(), `SELECT set_config('idle_session_timeout', $1, false)`, lease); err != nil {
		t.Fatal(err)
	}
	return l
}

func TestALeadIsHeldDuringLongWorkAndItsLossEndsTheWork(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	url := pgtest.URL(t)
	db, err := postgres.Open(url, "watcher", 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	// Both would be lost after the same time; one of them is held.
	held, idle := lead(t, url, "held", "5s"), lead(t, url, "idle", "5s")
	gone := func(name string) bool {
		var n int
		if err := db.QueryRowContext(ctx, `
			SELECT count(*) FROM pg_stat_activity WHERE application_name = $1 AND datname = current_database()`, name).Scan(&n); err != nil {
			t.Error(err)
			return true
		}
		return n == 0
	}
	err = held.Hold(ctx, func(ctx context.Context) {
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for !gone("idle") && ctx.Err() == nil {
			<-tick.C
		}
	})
	if err != nil {
		t.Errorf("the lead was lost while it was held: %v", err)
	}
	if err := idle.Check(ctx); err == nil {
		t.Error("the other lead was not lost, so this shows nothing")
	}

	err = held.Hold(ctx, func(work context.Context) {
		if _, err := db.ExecContext(ctx, `
			SELECT pg_terminate_backend(pid) FROM pg_stat_activity
			WHERE application_name = 'held' AND datname = current_database()`); err != nil {
			t.Error(err)
		}
		<-work.Done()
	})
	if err == nil || ctx.Err() != nil || !errors.Is(err, postgres.ErrUnavailable) {
		t.Errorf("after the loss of the lead: %v, want ErrUnavailable", err)
	}
}
