package postgres

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/lib/pq"
)

// ErrUnusable is wrapped by errors of Probe: waiting will not help.
var ErrUnusable = errors.New("postgres cannot be used")

const (
	probeTimeout = 10 * time.Second
	// oldestServer is the server_version_num of the oldest supported Postgres.
	oldestServer = 150000
	// poolerTries is the number of checks whether sessions share connections.
	poolerTries = 5
)

// Probe connects and reports permanent errors, with advice: a user, a password
// or a database that the server does not know, parameters that a pooler
// refuses, a Postgres that is too old, and a pooler that gives a session's
// connection to others between its transactions. An unreachable database is not
// an error here.
func Probe(ctx context.Context, db *sql.DB) error {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	err := probe(ctx, db)
	if err == nil || errors.Is(err, ErrUnusable) {
		return err
	}
	if refusal, ok := errors.AsType[*pq.Error](err); ok {
		if what := refusalOf(refusal); what != "" {
			return fmt.Errorf("%w: %s (it says: %s)", ErrUnusable, what, refusal.Message)
		}
	}
	return nil
}

func probe(ctx context.Context, db *sql.DB) error {
	one, err := db.Conn(ctx)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer func() { _ = one.Close() }()
	var version int
	if err := one.QueryRowContext(ctx, "SELECT current_setting('server_version_num')::int").Scan(&version); err != nil {
		return fmt.Errorf("read version: %w", err)
	}
	if version < oldestServer {
		return fmt.Errorf("%w: it is version %d, want %d or later", ErrUnusable, version/10000, oldestServer/10000)
	}
	return probePooler(ctx, db, one)
}

// probePooler checks whether a session keeps its connection between its
// transactions, on which locks, prepared statements and settings rely. Another
// pooler gives it to the next client.
func probePooler(ctx context.Context, db *sql.DB, one *sql.Conn) error {
	other, err := db.Conn(ctx)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer func() { _ = other.Close() }()
	process := func(conn *sql.Conn) (pid int, err error) {
		if err := conn.QueryRowContext(ctx, "SELECT pg_backend_pid()").Scan(&pid); err != nil {
			return 0, fmt.Errorf("read process of session: %w", err)
		}
		return pid, nil
	}
	for range poolerTries {
		before, err := process(one)
		if err != nil {
			return err
		}
		between, err := process(other)
		if err != nil {
			return err
		}
		after, err := process(one)
		if err != nil {
			return err
		}
		if before == between || before != after {
			return fmt.Errorf("%w: sessions share connections, as with pool_mode = transaction of PgBouncer; want pool_mode = session, or DATABASE_URL of Postgres itself", ErrUnusable)
		}
	}
	return nil
}

// refusalOf describes a permanent refusal of a server or a pooler, with advice;
// "" for a temporary error. PgBouncer has one code for all its errors,
// including outages, so there the text decides.
func refusalOf(err *pq.Error) string {
	message := strings.ToLower(err.Message)
	has := func(words string) bool { return strings.Contains(message, words) }
	switch {
	case err.Code.Class() == "28", err.Code == "08P01" && (has("authentication failed") || has("no such user")):
		return "it refuses the user or the password: check DATABASE_URL and PGPASSWORD; a volume keeps the password that it was made with"
	case err.Code == "3D000", err.Code == "08P01" && (has("no such database") || has("bouncer config error")):
		return "it has no such database: check the name in DATABASE_URL, or create it, here or in the configuration of the pooler"
	case err.Code == "08P01" && has("unsupported startup parameter"):
		return "the pooler refuses a parameter of the connection: take it out of DATABASE_URL, or add it to ignore_startup_parameters of PgBouncer"
	case err.Code == "42704" && has("unrecognized configuration parameter"):
		return "it does not know a parameter of the connection: take it out of DATABASE_URL"
	}
	return ""
}
