package e2e_test

import (
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lib/pq"
)

// TestDeliveryIsNotReadyWhileTheDatabaseIsReadOnly makes Postgres read-only, like a
// standby, while a request is in flight: successful reads do not hide that
// delivery cannot record.
func TestDeliveryIsNotReadyWhileTheDatabaseIsReadOnly(t *testing.T) {
	t.Parallel()
	s := newSystem(t, "")
	addr := freeAddr(t)
	s.url = "http://" + addr
	start(t, map[string]string{
		"DATABASE_URL": s.dbURL, "AMQP_URL": s.broker.URL, "HTTP_ADDR": addr, "POSTHORN_ALLOW_NETWORKS": "127.0.0.0/8",
		"POSTHORN_NAMESPACE": s.broker.Namespace,
	}, "run")
	eventually(t, patience, "it is ready", func() bool { return healthy(t, addr, "/readyz") })
	entered, release := make(chan struct{}, 1), make(chan struct{})
	var once sync.Once
	t.Cleanup(func() { once.Do(func() { close(release) }) })
	r := newSubscriber(t, func(int, *http.Request) int {
		entered <- struct{}{}
		<-release
		return http.StatusOK
	})
	sub := s.subscribe(r.URL, nil, "E")
	s.post("E", 1)
	<-entered

	var name string
	if err := s.db.QueryRowContext(t.Context(), `SELECT current_database()`).Scan(&name); err != nil {
		t.Fatal(err)
	}
	set := func(value string) {
		t.Helper()
		if _, err := s.db.ExecContext(t.Context(), `ALTER DATABASE `+pq.QuoteIdentifier(name)+` SET default_transaction_read_only = `+value); err != nil {
			t.Fatal(err)
		}
		if _, err := s.db.ExecContext(t.Context(), `
			SELECT pg_terminate_backend(pid) FROM pg_stat_activity
			WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name LIKE 'posthorn %'`); err != nil {
			t.Fatal(err)
		}
	}
	set("on")
	once.Do(func() { close(release) })
	delivery := func() string {
		_, state, _ := askReady(t, addr)
		return strings.Join(state.Parts["delivery"].Problems, "; ")
	}
	eventually(t, patience, "delivery says that it cannot record", func() bool { return strings.Contains(delivery(), "database") })
	// The subscriptions are read five times a second meanwhile.
	looks := 0
	for begun := time.Now(); time.Since(begun) < 3*time.Second; looks++ {
		if problems := delivery(); problems == "" {
			t.Fatalf("after %d polls delivery says that it is ready", looks)
		}
	}
	set("off")
	eventually(t, patience, "it is ready again", func() bool { return healthy(t, addr, "/readyz") })
	eventually(t, patience, "the attempt is recorded", func() bool { return s.ledger(sub.ID)["delivered"] == 1 })
	if n := len(r.got()); n != 1 {
		t.Errorf("%d requests, want 1", n)
	}
}
