package postgres

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/lib/pq"

	"posthorn/events"
	"posthorn/services/internal/serverurl"
)

var (
	// ErrUnavailable is wrapped by every function of this package when the
	// database is unreachable, starting, stopping, out of connections or out of
	// space, or has broken a deadlock.
	ErrUnavailable = errors.New("postgres is unavailable")
	// ErrNotFound is wrapped when the requested row does not exist.
	ErrNotFound = errors.New("not found")
)

// Queryer is what *sql.DB, *sql.Conn and *sql.Tx have in common.
type Queryer interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// Open returns a pool for the server of the URL; PGPASSWORD is the password if
// the URL has none. It does not connect: the first query reports an unreachable
// database, and Probe reports permanent errors. application names the
// connections in pg_stat_activity.
func Open(databaseURL, application string, maxConns int) (*sql.DB, error) {
	address, settings, err := connection(databaseURL, application)
	if err != nil {
		return nil, err
	}
	connector, err := pq.NewConnector(address)
	if err != nil {
		return nil, fmt.Errorf("read database URL: %w", err)
	}
	db := sql.OpenDB(session{connector, settings})
	db.SetMaxOpenConns(maxConns)
	db.SetMaxIdleConns(maxConns)
	db.SetConnMaxIdleTime(5 * time.Minute)
	return db, nil
}

// connection is the address for the driver, and the statements that set up a
// session.
func connection(databaseURL, application string) (address, settings string, err error) {
	u, err := serverurl.Parse(databaseURL, []string{"postgres", "postgresql"}, "postgres://user:password@host:5432/name", "PGPASSWORD")
	if err != nil {
		return "", "", fmt.Errorf("DATABASE_URL: %w", err)
	}
	q := u.Query()
	for name, value := range map[string]string{
		"application_name": application,
		"connect_timeout":  "5",
		// Bind parameters in one round trip instead of two.
		"binary_parameters": "yes",
	} {
		if !q.Has(name) {
			q.Set(name, value)
		}
	}
	var set strings.Builder
	for _, s := range [...]struct{ name, value string }{
		// Forwarded records must survive a crash of the database.
		{"synchronous_commit", "on"},
		// Our statements are short; compiling one costs more than running it.
		{"jit", "off"},
	} {
		if !q.Has(s.name) {
			set.WriteString("SET " + s.name + " TO " + s.value + ";")
		}
	}
	u.RawQuery = q.Encode()
	return u.String(), set.String(), nil
}

// session sets a connection's settings after connecting. A pooler such as
// PgBouncer would refuse them as startup parameters, like those of the URL, or
// be configured to ignore them, and ignored settings are not safe.
type session struct {
	driver.Connector

	settings string
}

// Connect implements driver.Connector.
func (s session) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := s.Connector.Connect(ctx)
	if err != nil || s.settings == "" {
		return conn, err //nolint:wrapcheck // database/sql inspects it
	}
	execer, ok := conn.(driver.ExecerContext)
	if !ok {
		return nil, errors.Join(errors.New("driver has no ExecContext"), conn.Close())
	}
	if _, err := execer.ExecContext(ctx, s.settings, nil); err != nil {
		_ = conn.Close() // err has the cause
		return nil, fmt.Errorf("set up connection: %w", err)
	}
	return conn, nil
}

// Translate maps an error of database/sql or of the driver to this package's.
// It returns nil, context errors and unknown errors unchanged.
func Translate(err error) error {
	if err == nil || errors.Is(err, ErrUnavailable) || errors.Is(err, ErrNotFound) {
		return err
	}
	if errors.Is(err, sql.ErrNoRows) {
		return ErrNotFound
	}
	if Unavailable(err) {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	if refused := refusedEvent(err); refused != "" {
		return fmt.Errorf("%w: %s", events.ErrInvalid, refused)
	}
	return err
}

// refusedEvent says why a check of the log refuses an event. Events are
// validated before, so this is only a second line of defence.
func refusedEvent(err error) string {
	refusal, ok := errors.AsType[*pq.Error](err)
	if !ok || refusal.Code != "23514" { // check_violation
		return ""
	}
	switch refusal.Constraint {
	case "":
		// RAISE of posthorn.check_json, whose text is like those below.
		if text, ok := strings.CutPrefix(refusal.Message, "data: "); ok {
			return "data: " + text
		}
	case "outbox_id_check":
		return `id: want 1 to 128 visible ASCII characters other than "."`
	case "outbox_account_check":
		return `account: want 1 to 64 lower-case letters, digits, "_" or "-"`
	case "outbox_type_check", "outbox_type_words":
		return `type: want at most 16 words of letters, digits, "_" and "-", joined by dots, in 128 bytes`
	case "outbox_subject_is_at_most_512_bytes":
		return "subject: longer than 512 bytes"
	case "outbox_data_check":
		return "data: longer than 1048576 bytes"
	case "outbox_data_is_json_nested_at_most_63_levels_deep":
		return "data: want one JSON value, nested at most 63 levels deep"
	case "outbox_metadata_check", "outbox_metadata_is_strings_of_at_most_8192_bytes":
		return "metadata: want an object of strings of at most 8192 bytes"
	case "outbox_attributes_are_those_of_a_cloudevent":
		return "attributes: want those of a CloudEvent"
	case "outbox_occurred_at_is_in_the_years_1_to_9999":
		return "occurredAt: want a time in the years 1 to 9999"
	}
	return ""
}

// Unavailable reports whether an error of the driver means that the database
// cannot be used at the moment.
func Unavailable(err error) bool {
	if pqErr, ok := errors.AsType[*pq.Error](err); ok {
		if refusalOf(pqErr) != "" {
			return false
		}
		switch pqErr.Code.Class() {
		case "08", // connection exception
			"40", // transaction rollback: deadlock, serialization failure
			"53", // insufficient resources: connections, disk, memory
			"57", // operator intervention: shutdown, restart, cancelled by timeout
			"58": // system error, such as I/O
			return true
		}
		return pqErr.Code == "25006" // read-only: a standby, or about to become one
	}
	var opErr *net.OpError
	var dnsErr *net.DNSError
	return errors.As(err, &opErr) || errors.As(err, &dnsErr) ||
		errors.Is(err, driver.ErrBadConn) || errors.Is(err, sql.ErrConnDone) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed)
}

// ErrState is wrapped when the current state does not allow the requested
// change.
var ErrState = errors.New("not possible in this state")
