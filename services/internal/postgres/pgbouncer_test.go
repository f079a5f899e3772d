package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"posthorn/events"
	"posthorn/migrations/pgtest"
	"posthorn/services/internal/eventlog"
	"posthorn/services/internal/postgres"
)

// pgbouncer starts a PgBouncer in front of the database, and returns its URL.
func pgbouncer(t *testing.T, databaseURL, poolMode string) string {
	t.Helper()
	path, err := exec.LookPath("pgbouncer")
	if err != nil {
		if path, err = exec.LookPath("/usr/sbin/pgbouncer"); err != nil {
			t.Fatalf("pgbouncer is missing: scripts/install test: %v", err)
		}
	}
	server, err := url.Parse(databaseURL)
	if err != nil {
		t.Fatal(err)
	}
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err = errors.Join(err, l.Close()); err != nil {
		t.Fatal(err)
	}
	password, _ := server.User.Password()
	name := strings.TrimPrefix(server.Path, "/")
	dir, err := os.MkdirTemp("", "pgbouncer") //nolint:usetesting // other users cannot enter the test's own
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	ini := fmt.Sprintf(`[databases]
%[1]s = host=%[2]s port=%[3]s dbname=%[1]s user=%[4]s password=%[5]s
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %[6]s
unix_socket_dir =
auth_type = any
pool_mode = %[7]s
default_pool_size = 5
`, name, server.Hostname(), server.Port(), server.User.Username(), password, port, poolMode)
	file := filepath.Join(dir, "pgbouncer.ini")
	if err := os.WriteFile(file, []byte(ini), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), path, "-q", file)
	if os.Geteuid() == 0 { // PgBouncer refuses to run as root
		nobody, err := user.Lookup("nobody")
		if err != nil {
			t.Fatal(err)
		}
		uid, uidErr := strconv.Atoi(nobody.Uid)
		gid, gidErr := strconv.Atoi(nobody.Gid)
		if err := errors.Join(uidErr, gidErr, os.Chown(dir, uid, gid), os.Chown(file, uid, gid)); err != nil {
			t.Fatal(err)
		}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
	}
	var log strings.Builder
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // at once; SIGINT would wait for clients
		if err := <-done; err != nil {
			t.Logf("pgbouncer: %v", err)
		}
	})
	for deadline := time.Now().Add(20 * time.Second); ; {
		conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(t.Context(), "tcp", net.JoinHostPort("127.0.0.1", port))
		if err == nil {
			_ = conn.Close()
			break
		}
		select {
		case err := <-done:
			done <- err // for the cleanup
			t.Fatalf("pgbouncer has ended: %v\n%s", err, log.String())
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			t.Fatalf("pgbouncer does not listen:\n%s", log.String())
		}
	}
	server.Host = net.JoinHostPort("127.0.0.1", port)
	return server.String()
}

func TestPgBouncerPoolingSessionsWorks(t *testing.T) {
	t.Parallel()
	direct := pgtest.URL(t)
	db, err := postgres.Open(pgbouncer(t, direct, "session"), "test", 4)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	if err := postgres.Probe(t.Context(), db); err != nil {
		t.Fatal(err)
	}
	// Durability must not depend on the pooler's settings.
	var durable, compiled string
	if err := db.QueryRowContext(t.Context(), `SELECT current_setting('synchronous_commit'), current_setting('jit')`).Scan(&durable, &compiled); err != nil ||
		durable != "on" || compiled != "off" {
		t.Errorf("synchronous_commit %q, jit %q, %v", durable, compiled, err)
	}
	// Session locks, prepared statements, and the log.
	lead, err := postgres.TryLead(t.Context(), db, "relay")
	if err != nil || lead == nil {
		t.Fatalf("take the lead: %v, %v", lead, err)
	}
	if second, err := postgres.TryLead(t.Context(), db, "relay"); err != nil || second != nil {
		t.Errorf("two lead: %v, %v", second, err)
	}
	if err := lead.Release(); err != nil {
		t.Error(err)
	}
	appended, err := eventlog.AppendGroup(t.Context(), db, []events.Event{{Type: "a", Data: []byte("1")}, {Type: "b", Data: []byte("2")}})
	if err != nil || len(appended) != 2 {
		t.Errorf("append: %v, %v", appended, err)
	}
}

func TestAPoolerThatSharesSessionsIsRefused(t *testing.T) {
	t.Parallel()
	for mode, says := range map[string]string{"transaction": "pool_mode = session", "statement": "pool_mode = session"} {
		db, err := postgres.Open(pgbouncer(t, pgtest.URL(t), mode), "test", 4)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = db.Close() })
		begun := time.Now()
		err = postgres.Probe(t.Context(), db)
		if !errors.Is(err, postgres.ErrUnusable) || errors.Is(err, postgres.ErrUnavailable) || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", mode, err)
		}
		if took := time.Since(begun); took > 5*time.Second {
			t.Errorf("%s: told after %v", mode, took)
		}
	}
}

func TestWhatWillNotPassIsToldAtOnce(t *testing.T) {
	t.Parallel()
	direct := pgtest.URL(t)
	through := pgbouncer(t, direct, "session")
	change := func(raw string, f func(*url.URL)) string {
		u, err := url.Parse(raw)
		if err != nil {
			t.Fatal(err)
		}
		f(u)
		return u.String()
	}
	parameter := func(u *url.URL) {
		q := u.Query()
		q.Set("work_mem", "64MB")
		u.RawQuery = q.Encode()
	}
	for name, c := range map[string]struct{ url, says string }{
		"a wrong password":                   {change(direct, func(u *url.URL) { u.User = url.UserPassword(u.User.Username(), "wrong-secret") }), "refuses the user or the password"},
		"an unknown user":                    {change(direct, func(u *url.URL) { u.User = url.UserPassword("nobody-knows", "wrong-secret") }), "refuses the user or the password"},
		"an unknown database":                {change(direct, func(u *url.URL) { u.Path = "/nowhere" }), "no such database"},
		"an unknown database of PgBouncer":   {change(through, func(u *url.URL) { u.Path = "/nowhere" }), "no such database"},
		"a parameter that PgBouncer refuses": {change(through, parameter), "ignore_startup_parameters"},
		"a parameter that nobody knows": {change(direct, func(u *url.URL) {
			q := u.Query()
			q.Set("nonsense", "1")
			u.RawQuery = q.Encode()
		}), "does not know a parameter"},
	} {
		db, err := postgres.Open(c.url, "test", 2)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = db.Close() })
		err = postgres.Probe(t.Context(), db)
		if !errors.Is(err, postgres.ErrUnusable) || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "wrong-secret") {
			t.Errorf("%s: %v, want %q", name, err, c.says)
		}
		// A later query must not report an outage either.
		if err := postgres.Translate(db.PingContext(t.Context())); err == nil || errors.Is(err, postgres.ErrUnavailable) {
			t.Errorf("%s is taken for an outage: %v", name, err)
		}
	}
	// Allowed parameters pass, and an unreachable database is not an error.
	for name, address := range map[string]string{
		"a parameter": change(direct, parameter),
		"nobody":      change(direct, func(u *url.URL) { u.Host = "127.0.0.1:1" }),
	} {
		db, err := postgres.Open(address, "test", 2)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = db.Close() })
		if err := postgres.Probe(t.Context(), db); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
