// Package pgtest gives each test a migrated database of its own on the
// Postgres server that DATABASE_URL names.
//
// The first test that runs after a change of the migrations builds a template
// database; all others copy it, in a few tens of milliseconds, so tests may run
// in parallel and never see each other's rows. The copy is dropped when its
// test ends. Nothing is mocked and nothing is skipped: without a server the
// test fails. The role in DATABASE_URL needs the CREATEDB privilege.
package pgtest

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/lib/pq"

	"posthorn/migrations"
)

const (
	// templateLock admits one builder of the template at a time.
	templateLock = 0x706774657374 // "pgtest"
	// dropTimeout bounds the cleanup, which runs after the test's own context has ended.
	dropTimeout = time.Minute
)

// New returns a pool on a fresh migrated database, closed and dropped when the
// test ends.
func New(t testing.TB) *sql.DB {
	t.Helper()
	db, err := sql.Open("postgres", URL(t))
	if err != nil {
		t.Fatalf("open test database: %v", err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Errorf("close test database: %v", err)
		}
	})
	return db
}

// URL returns the address of a fresh migrated database. It is dropped when the
// test ends, even if clients are still connected.
func URL(t testing.TB) string {
	t.Helper()
	server := os.Getenv("DATABASE_URL")
	if server == "" {
		t.Fatal("DATABASE_URL is not set: run the tests with `make test`, which starts a private Postgres, or point it at a server where databases may be created")
	}
	admin, err := sql.Open("postgres", server)
	if err != nil {
		t.Fatalf("open DATABASE_URL: %v", err)
	}
	defer func() { _ = admin.Close() }() // nothing is pending on it

	template, err := ensureTemplate(t.Context(), admin, server)
	if err != nil {
		t.Fatalf("make the template database: %v", err)
	}
	name := "posthorn_test_" + strings.ToLower(rand.Text())
	// file_copy took half the time of wal_log, one test at a time (70 ms
	// against 130) and with twelve in parallel, on a server with fsync off.
	query := "CREATE DATABASE " + pq.QuoteIdentifier(name) + " TEMPLATE " + pq.QuoteIdentifier(template) + " STRATEGY file_copy" //nolint:gosec // quoted, and no external input
	if _, err := admin.ExecContext(t.Context(), query); err != nil {                                                             //nolint:gosec // as above
		t.Fatalf("create test database: %v", err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), dropTimeout)
		defer cancel()
		if err := drop(ctx, server, name); err != nil {
			t.Errorf("drop test database: %v", err)
		}
	})
	dsn, err := withDatabase(server, name)
	if err != nil {
		t.Fatalf("address of the test database: %v", err)
	}
	return dsn
}

// ensureTemplate returns the name of a database that holds the migrated schema,
// and builds it if this version of the migrations has none yet.
func ensureTemplate(ctx context.Context, admin *sql.DB, server string) (string, error) {
	sum, err := fingerprint(migrations.FS)
	if err != nil {
		return "", err
	}
	name := "posthorn_template_" + sum
	return name, ensureTemplateNamed(ctx, admin, server, name)
}

func ensureTemplateNamed(ctx context.Context, admin *sql.DB, server, name string) (err error) {
	if ready, err := isTemplate(ctx, admin, name); err != nil || ready {
		return err
	}
	conn, err := admin.Conn(ctx)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	// Closing the connection's pool releases the lock in any case.
	defer func() { err = errors.Join(err, conn.Close()) }()
	if _, err := conn.ExecContext(ctx, "SELECT pg_advisory_lock($1)", int64(templateLock)); err != nil {
		return fmt.Errorf("wait for another builder: %w", err)
	}
	if ready, err := isTemplate(ctx, admin, name); err != nil || ready {
		return err
	}
	quoted := pq.QuoteIdentifier(name)
	// A database that a crashed builder left behind is not marked as a template.
	if _, err := conn.ExecContext(ctx, "DROP DATABASE IF EXISTS "+quoted+" WITH (FORCE)"); err != nil {
		return fmt.Errorf("drop half-made template: %w", err)
	}
	if _, err := conn.ExecContext(ctx, "CREATE DATABASE "+quoted); err != nil {
		return fmt.Errorf("create template: %w", err)
	}
	if err := migrate(ctx, server, name); err != nil {
		return err
	}
	// A template that refuses connections can always be copied.
	if _, err := conn.ExecContext(ctx, "ALTER DATABASE "+quoted+" ALLOW_CONNECTIONS false IS_TEMPLATE true"); err != nil {
		return fmt.Errorf("mark template: %w", err)
	}
	return nil
}

func isTemplate(ctx context.Context, admin *sql.DB, name string) (bool, error) {
	var ready bool
	query := "SELECT EXISTS (SELECT 1 FROM pg_database WHERE datname = $1 AND datistemplate AND NOT datallowconn)"
	if err := admin.QueryRowContext(ctx, query, name).Scan(&ready); err != nil {
		return false, fmt.Errorf("look for template: %w", err)
	}
	return ready, nil
}

func migrate(ctx context.Context, server, name string) (err error) {
	dsn, err := withDatabase(server, name)
	if err != nil {
		return err
	}
	db, err := sql.Open("postgres", dsn)
	if err != nil {
		return fmt.Errorf("open template: %w", err)
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if err := migrations.Up(ctx, db); err != nil {
		return fmt.Errorf("migrate template: %w", err)
	}
	return nil
}

func drop(ctx context.Context, server, name string) (err error) {
	admin, err := sql.Open("postgres", server)
	if err != nil {
		return fmt.Errorf("open DATABASE_URL: %w", err)
	}
	defer func() { err = errors.Join(err, admin.Close()) }()
	_, err = admin.ExecContext(ctx, "DROP DATABASE IF EXISTS "+pq.QuoteIdentifier(name)+" WITH (FORCE)")
	return err
}

// withDatabase returns the server's address with another database in it.
func withDatabase(server, name string) (string, error) {
	u, err := url.Parse(server)
	if err != nil || (u.Scheme != "postgres" && u.Scheme != "postgresql") {
		// The parser's error would print the password.
		return "", errors.New("DATABASE_URL is not of the form postgres://user:password@host:port/database")
	}
	u.Path = "/" + name
	return u.String(), nil
}

// fingerprint is short because a database's name has at most 63 bytes.
func fingerprint(files fs.FS) (string, error) {
	names, err := fs.Glob(files, "*.sql")
	if err != nil {
		return "", fmt.Errorf("list migrations: %w", err)
	}
	h := sha256.New()
	for _, name := range names {
		content, err := fs.ReadFile(files, name)
		if err != nil {
			return "", fmt.Errorf("read migration: %w", err)
		}
		_, _ = fmt.Fprintf(h, "%s %d\n", name, len(content)) // a hash does not fail
		_, _ = h.Write(content)
	}
	return hex.EncodeToString(h.Sum(nil))[:16], nil
}
