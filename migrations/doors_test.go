package migrations_test

import (
	"context"
	"crypto/rand"
	"database/sql"
	"strings"
	"testing"

	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/database"

	"posthorn/migrations"
	"posthorn/migrations/pgtest"
)

// before reverts the schema to a version.
func before(t *testing.T, db *sql.DB, version int64) {
	t.Helper()
	store, err := database.NewStore(database.DialectPostgres, "posthorn.goose_db_version")
	if err != nil {
		t.Fatal(err)
	}
	provider, err := goose.NewProvider("", db, migrations.FS, goose.WithStore(store), goose.WithDisableGlobalRegistry(true))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := provider.DownTo(t.Context(), version-1); err != nil {
		t.Fatal(err)
	}
}

func execute(t *testing.T, db *sql.DB, statements ...string) {
	t.Helper()
	for _, statement := range statements {
		if _, err := db.ExecContext(t.Context(), statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
}

func TestALogWithInvalidRecordsIsMigrated(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	before(t, db, 8)
	execute(t, db,
		`SELECT posthorn.append_event('T', id => 'kept')`,
		`INSERT INTO posthorn.outbox (id, type, data, occurred_at) VALUES ('old', 'T', '\xff', 'infinity')`,
		`INSERT INTO posthorn.outbox (id, type, data, metadata) VALUES ('cloud', 'T', '{}', '{"ce_source": "/s"}')`,
		`INSERT INTO posthorn.idempotency_keys (account, key, digest) SELECT 'default', 'cloud', ''`)
	if err := migrations.Up(t.Context(), db); err != nil {
		t.Fatal(err)
	}
	for _, statement := range []string{
		`INSERT INTO posthorn.outbox (id, type, data, occurred_at) VALUES ('new', 'T', '{}', 'infinity')`,
		`INSERT INTO posthorn.outbox (id, type, data) VALUES ('new', 'T', '\xff')`,
		// Future partitions have the rules too.
		`DO $$ BEGIN
			PERFORM posthorn.ensure_partitions(40000000, 3);
			INSERT INTO posthorn.outbox (position, id, type, data) VALUES (45000000, 'new', 'T', '\xff');
		END $$`,
	} {
		if _, err := db.ExecContext(t.Context(), statement); err == nil {
			t.Errorf("%s was not refused", statement)
		}
	}
	// Events appended before are found again, a CloudEvent by its source and id.
	execute(t, db,
		`SELECT posthorn.append_event('T', id => 'kept')`,
		`SELECT posthorn.append_event('T', id => 'cloud', data => '{}', attributes => '{"source": "/s"}')`)
	var n int
	if err := db.QueryRowContext(t.Context(), `SELECT count(*) FROM posthorn.outbox`).Scan(&n); err != nil || n != 3 {
		t.Errorf("%d records, %v, want the 3 from before", n, err)
	}
}

func TestRolesThatCouldAppendStillCan(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	before(t, db, 8)
	suffix := strings.ToLower(rand.Text())
	for _, role := range []string{"writer", "caller", "reader"} {
		name := role + "_" + suffix
		execute(t, db, `CREATE ROLE `+name, `GRANT USAGE ON SCHEMA posthorn TO `+name)
		t.Cleanup(func() {
			ctx := context.WithoutCancel(t.Context())
			for _, statement := range []string{`DROP OWNED BY ` + name, `DROP ROLE ` + name} {
				if _, err := db.ExecContext(ctx, statement); err != nil {
					t.Error(err)
				}
			}
		})
	}
	execute(t, db, `GRANT INSERT, SELECT ON posthorn.outbox TO writer_`+suffix, `GRANT EXECUTE ON FUNCTION posthorn.append_event TO caller_`+suffix,
		`GRANT SELECT ON posthorn.outbox TO reader_`+suffix)
	if err := migrations.Up(t.Context(), db); err != nil {
		t.Fatal(err)
	}
	for role, want := range map[string]bool{"writer": true, "caller": true, "reader": false} {
		var may bool
		if err := db.QueryRowContext(t.Context(), `
			SELECT bool_and(has_function_privilege($1, oid, 'EXECUTE')) FROM pg_proc
			WHERE pronamespace = 'posthorn'::regnamespace AND proname LIKE 'append\_event%'`, role+"_"+suffix).Scan(&may); err != nil || may != want {
			t.Errorf("%s may append: %v, %v, want %v", role, may, err, want)
		}
	}
}

// Postgres grants a function to PUBLIC unless its migration revokes it.
func TestNoFunctionIsGrantedToPublic(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	rows, err := db.QueryContext(t.Context(), `
		SELECT p.oid::regprocedure::text FROM pg_proc p, aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
		WHERE p.pronamespace = 'posthorn'::regnamespace AND a.grantee = 0`)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			t.Fatal(err)
		}
		t.Errorf("%s is granted to PUBLIC: its migration has to REVOKE EXECUTE ON FUNCTION ... FROM PUBLIC", name)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
}
