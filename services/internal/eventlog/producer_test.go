package eventlog_test

import (
	"crypto/rand"
	"database/sql"
	"errors"
	"net/url"
	"strings"
	"testing"

	"github.com/lib/pq"

	"posthorn/events"
	"posthorn/migrations/pgtest"
	"posthorn/outbox"
	"posthorn/services/internal/eventlog"
	"posthorn/services/internal/postgres"
)

// producer is a role with the privileges that operations.md gives to one that
// only appends, and a connection as that role.
func producer(t *testing.T) (owner, role *sql.DB, name string) {
	t.Helper()
	address := pgtest.URL(t)
	owner, err := sql.Open("postgres", address)
	if err != nil {
		t.Fatal(err)
	}
	name = "producer_" + strings.ToLower(rand.Text())
	const password = "secret"
	for _, statement := range []string{
		`CREATE ROLE ` + name + ` LOGIN PASSWORD '` + password + `'`,
		`GRANT USAGE ON SCHEMA posthorn TO ` + name,
		`GRANT EXECUTE ON FUNCTION posthorn.append_event, posthorn.append_events TO ` + name,
	} {
		if _, err := owner.ExecContext(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		for _, statement := range []string{`DROP OWNED BY ` + name, `DROP ROLE ` + name} {
			if _, err := owner.Exec(statement); err != nil { //nolint:noctx // in Cleanup
				t.Error(err)
			}
		}
		_ = owner.Close()
	})
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.UserPassword(name, password)
	if role, err = sql.Open("postgres", u.String()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = role.Close() })
	return owner, role, name
}

func TestAProducerAppendsWithTheRightToExecuteAlone(t *testing.T) {
	t.Parallel()
	owner, role, _ := producer(t)
	ctx := t.Context()
	tx, err := role.BeginTx(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback() }()
	appended, err := outbox.Append(ctx, tx,
		events.Event{Type: "T"}, events.Event{Type: "T", ID: "chosen"}, events.Event{Type: "T", ID: "chosen"},
		events.Event{Type: "T", ID: "chosen", Source: "/s", ContentType: "image/png", Data: []byte("\xff\x00")})
	if err != nil {
		t.Fatal(err)
	}
	if appended[1].Position != appended[2].Position || appended[3].ID == "chosen" || appended[3].SourceID != "chosen" {
		t.Errorf("appended %+v", appended)
	}
	for range 3 {
		var id string
		if err := tx.QueryRowContext(ctx, `SELECT posthorn.append_event('T', 's', '{"n":1}')`).Scan(&id); err != nil || !strings.HasPrefix(id, "evt_") {
			t.Fatalf("append_event = %q, %v", id, err)
		}
		if err := tx.QueryRowContext(ctx, `SELECT posthorn.append_event('T', id => 'once')`).Scan(&id); err != nil || id != "once" {
			t.Fatalf("append_event = %q, %v", id, err)
		}
	}
	// The reading order holds for a producer too, with one lock.
	if horizon, err := eventlog.Horizon(ctx, owner); err != nil || horizon >= appended[0].Position {
		t.Errorf("horizon %d, %v, want it below the open position %d", horizon, err, appended[0].Position)
	}
	var locks int
	if err := tx.QueryRowContext(ctx, `
		SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()`).Scan(&locks); err != nil || locks != 1 {
		t.Errorf("%d advisory locks, %v, want 1", locks, err)
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	var records, others int
	if err := owner.QueryRowContext(ctx, `
		SELECT count(*), count(*) FILTER (WHERE kind <> 'event') FROM posthorn.outbox`).Scan(&records, &others); err != nil {
		t.Fatal(err)
	}
	if records != 7 || others != 0 {
		t.Errorf("%d records, %d of them no events, want 7 events", records, others)
	}
	if horizon, err := eventlog.Horizon(ctx, owner); err != nil || horizon < appended[0].Position {
		t.Errorf("horizon %d, %v after the commit", horizon, err)
	}
}

func TestAProducerCanDoNothingElse(t *testing.T) {
	t.Parallel()
	owner, role, name := producer(t)
	ctx := t.Context()
	if _, err := outbox.Append(ctx, mustConn(t, owner), events.Event{Type: "T", ID: "there", Data: []byte(`{"secret":1}`)}); err != nil {
		t.Fatal(err)
	}
	for _, statement := range []string{
		`SELECT * FROM posthorn.outbox`,
		`SELECT * FROM posthorn.outbox_000000`,
		`SELECT * FROM posthorn.subscriptions`,
		`SELECT * FROM posthorn.idempotency_keys`,
		`SELECT last_value FROM posthorn.outbox_position`,
		`SELECT nextval('posthorn.outbox_position')`,
		`INSERT INTO posthorn.outbox (id, type, data) VALUES ('x', 'T', '{}')`,
		`INSERT INTO posthorn.outbox (id, kind, type, subject, data) VALUES ('x', 'subscription', 'posthorn.subscription', 'sub_x', '{}')`,
		`UPDATE posthorn.outbox SET data = '{}'`,
		`DELETE FROM posthorn.outbox`,
		`TRUNCATE posthorn.outbox`,
		`CREATE TABLE posthorn.mine (n int)`,
		`CREATE FUNCTION posthorn.sha256(bytea) RETURNS bytea LANGUAGE sql RETURN NULL::bytea`,
		`SELECT posthorn.next_position()`,
		`SELECT posthorn.horizon()`,
		`SELECT posthorn.ensure_partitions(0, 100)`,
		`SELECT posthorn.append_given('{}', '{}')`,
		`SELECT posthorn.claim_ids('{}')`,
	} {
		_, err := role.ExecContext(ctx, statement)
		if refusal, ok := errors.AsType[*pq.Error](err); !ok || refusal.Code != "42501" { // insufficient_privilege
			t.Errorf("%s: %v, want permission to be denied", statement, err)
		}
	}
	rows, err := owner.QueryContext(ctx, `
		SELECT 'posthorn.' || p.proname || '(' FROM pg_proc p WHERE p.pronamespace = 'posthorn'::regnamespace AND has_function_privilege($1, p.oid, 'EXECUTE')
		UNION ALL
		SELECT c.oid::regclass::text FROM pg_class c WHERE c.relnamespace = 'posthorn'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm')
			AND has_table_privilege($1, c.oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER')`, name)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var what string
		if err := rows.Scan(&what); err != nil {
			t.Fatal(err)
		}
		if name, _, _ := strings.Cut(what, "("); name != "posthorn.append_event" && name != "posthorn.append_events" {
			t.Errorf("it has a right on %s", what)
		}
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
}

func TestAProducerCannotForgeWhatItAppends(t *testing.T) {
	t.Parallel()
	owner, role, _ := producer(t)
	ctx := t.Context()
	if _, err := outbox.Append(ctx, mustConn(t, owner), events.Event{Type: "T", ID: "there"}); err != nil {
		t.Fatal(err)
	}
	// An id that is not marked as keyed is replaced by a generated one.
	var id string
	if err := role.QueryRowContext(ctx, `
		SELECT id FROM posthorn.append_events('{there}', '{f}', '{default}', '{T}', '{s}', '{1}', '{{}}'::text[], '{NULL}')`).Scan(&id); err == nil {
		t.Errorf("metadata {{}} is an array of no elements, and was accepted: %s", id)
	}
	if err := role.QueryRowContext(ctx, `
		SELECT id FROM posthorn.append_events('{there}', '{f}', '{default}', '{T}', '{s}', '{1}', ARRAY['{}'], '{NULL}')`).Scan(&id); err != nil || id == "there" {
		t.Errorf("id %q, %v, want a generated one", id, err)
	}
	// Claiming that the data was checked does not bypass the table's checks.
	for _, data := range []string{`ARRAY['{']`, `ARRAY[NULL]::text[]`} {
		_, err := role.ExecContext(ctx, `
			SELECT posthorn.append_events('{x}', '{t}', '{default}', '{T}', '{s}', `+data+`, ARRAY['{}'], '{NULL}', NULL, '{"\\xff00"}', true)`)
		if err == nil {
			t.Errorf("%s was appended", data)
		}
	}
	if _, err := role.ExecContext(ctx, `SELECT posthorn.append_event('T', data_bytes => '\xff00')`); err == nil ||
		!strings.Contains(err.Error(), "data: want one JSON value in UTF-8") {
		t.Errorf("bytes: %v, want the field to be named", err)
	}
	// Objects in the caller's search path do not change what the functions call.
	for _, statement := range []string{
		`CREATE FUNCTION pg_temp.convert_to(text, name) RETURNS bytea LANGUAGE sql RETURN '\xff'::bytea`,
		`CREATE FUNCTION pg_temp.sha256(bytea) RETURNS bytea LANGUAGE plpgsql AS $$ BEGIN RAISE 'as %', current_user; END $$`,
		`CREATE TEMPORARY TABLE outbox (n int)`,
		`SET search_path = pg_temp, posthorn, pg_catalog`,
		`SELECT posthorn.append_event('T', data => '{"kept":1}', id => 'kept')`,
	} {
		if _, err := mustSameConn(t, role).ExecContext(ctx, statement); err != nil {
			t.Errorf("%s: %v", statement, err)
		}
	}
	var data string
	if err := owner.QueryRowContext(ctx, `SELECT convert_from(data, 'UTF8') FROM posthorn.outbox WHERE id = 'kept'`).Scan(&data); err != nil || data != `{"kept":1}` {
		t.Errorf("data %q, %v", data, err)
	}
	var n int
	if err := owner.QueryRowContext(ctx, `SELECT count(*) FROM posthorn.outbox WHERE id = 'there'`).Scan(&n); err != nil || n != 1 {
		t.Errorf("%d records have the id, %v", n, err)
	}
}

// mustSameConn limits a pool to one connection, which keeps the session's settings.
func mustSameConn(t *testing.T, db *sql.DB) *sql.DB {
	t.Helper()
	db.SetMaxOpenConns(1)
	db.SetMaxIdleConns(1)
	return db
}

// If the table refuses an event that Validate accepts, it still counts as an
// invalid event, and the error names the field.
func TestARefusalOfTheTableNamesTheField(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	var names []string
	if err := db.QueryRowContext(t.Context(), `
		SELECT array_agg(conname::text) FROM pg_constraint
		WHERE conrelid = 'posthorn.outbox'::regclass AND contype = 'c' AND conname NOT IN ('outbox_kind_check', 'outbox_recorded_at_is_in_the_years_1_to_9999')`).
		Scan(pq.Array(&names)); err != nil {
		t.Fatal(err)
	}
	for _, name := range append(names, "") {
		err := postgres.Translate(&pq.Error{Code: "23514", Constraint: name, Message: "data: is nested deeper than 63 levels"})
		if !errors.Is(err, events.ErrInvalid) || strings.Count(err.Error(), ": ") < 2 {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, err := db.ExecContext(t.Context(), `SELECT posthorn.append_event('T', repeat('s', 513))`)
	if err = postgres.Translate(err); !errors.Is(err, events.ErrInvalid) || !strings.HasSuffix(err.Error(), ": subject: longer than 512 bytes") {
		t.Errorf("%v", err)
	}
}
