package eventlog_test

import (
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"posthorn/migrations/pgtest"
	"posthorn/outbox"
	"posthorn/services/internal/eventlog"
	"posthorn/services/internal/postgres"
)

func TestAWakerReachesAListenerAlsoAfterItsConnectionWasLost(t *testing.T) {
	t.Parallel()
	url := pgtest.URL(t)
	db, err := postgres.Open(url, "test", 4)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	l, err := postgres.Listen(url, "listener", outbox.Channel, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	w := eventlog.NewWaker(db)
	// woken wakes until it is heard: before the connection stands nobody listens.
	woken := func() {
		t.Helper()
		deadline := time.After(30 * time.Second)
		for {
			w.Wake()
			select {
			case <-l.C():
				return
			case <-deadline:
				t.Fatal("no notification arrives")
			case <-time.After(20 * time.Millisecond):
			}
		}
	}
	woken()
	if _, err := db.ExecContext(t.Context(), `
		SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'listener' AND datname = current_database()`); err != nil {
		t.Fatal(err)
	}
	woken()
}

func TestARelayOfTheSameProcessIsWokenWithoutADatabase(t *testing.T) {
	t.Parallel()
	var near atomic.Int32
	w := eventlog.NewWaker(nil)
	w.Near = func() bool { near.Add(1); return true }
	w.Wake()
	w.Wake()
	if n := near.Load(); n != 2 {
		t.Errorf("woken %d times, want 2", n)
	}
}
