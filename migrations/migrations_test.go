package migrations_test

import (
	"sync"
	"testing"

	"posthorn/migrations"
	"posthorn/migrations/pgtest"
)

func TestSeveralProgramsCanMigrateAtOnce(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.SetMaxOpenConns(20)
	if _, err := db.ExecContext(t.Context(), `DROP SCHEMA posthorn CASCADE`); err != nil {
		t.Fatal(err)
	}
	var starting sync.WaitGroup
	for range 6 {
		starting.Go(func() {
			if err := migrations.Up(t.Context(), db); err != nil {
				t.Errorf("Up: %v", err)
			}
		})
	}
	starting.Wait()
	var applied, twice int
	if err := db.QueryRowContext(t.Context(), `
		SELECT count(*), count(*) - count(DISTINCT version_id) FROM posthorn.goose_db_version WHERE version_id > 0`).Scan(&applied, &twice); err != nil {
		t.Fatal(err)
	}
	entries, err := migrations.FS.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	if applied != len(entries) || twice != 0 {
		t.Errorf("%d migrations are applied, %d of them twice, want each of %d once", applied, twice, len(entries))
	}
	if err := migrations.Up(t.Context(), db); err != nil {
		t.Errorf("Up again: %v", err)
	}
}

func TestPartitionsAreCreatedAheadAndOnlyOnce(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	ensure := func(position int64, ahead int) (made int) {
		t.Helper()
		if err := db.QueryRowContext(t.Context(), `SELECT posthorn.ensure_partitions($1, $2)`, position, ahead).Scan(&made); err != nil {
			t.Fatal(err)
		}
		return made
	}
	if made := ensure(0, 3); made != 0 {
		t.Errorf("%d partitions were made, want those of the first migration to be enough", made)
	}
	if made := ensure(10_000_000, 3); made != 3 {
		t.Errorf("%d partitions were made, want one for each of the three tables", made)
	}
	// The log continues in the next partition, with its indexes.
	if _, err := db.ExecContext(t.Context(), `SELECT setval('posthorn.outbox_position', 40000000, true)`); err != nil {
		t.Fatal(err)
	}
	if _, err := db.ExecContext(t.Context(), `SELECT posthorn.append_event('T')`); err != nil {
		t.Fatal(err)
	}
	var table string
	var indexes int
	if err := db.QueryRowContext(t.Context(), `SELECT c.relname FROM posthorn.outbox o JOIN pg_class c ON c.oid = o.tableoid`).Scan(&table); err != nil {
		t.Fatal(err)
	}
	if table != "outbox_000004" {
		t.Errorf("the event is in %s", table)
	}
	if err := db.QueryRowContext(t.Context(), `
		SELECT (SELECT count(*) FROM pg_index WHERE indrelid = 'posthorn.outbox'::regclass) -
		       (SELECT count(*) FROM pg_index WHERE indrelid = 'posthorn.outbox_000004'::regclass)`).Scan(&indexes); err != nil {
		t.Fatal(err)
	}
	if indexes != 0 {
		t.Errorf("the new partition lacks %d indexes", indexes)
	}
}
