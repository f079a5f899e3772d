package pgtest_test

import (
	"database/sql"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/fstest"

	"posthorn/migrations/pgtest"
)

func TestEachTestHasAMigratedDatabaseOfItsOwn(t *testing.T) {
	t.Parallel()
	one, two := pgtest.New(t), pgtest.New(t)

	if _, err := one.ExecContext(t.Context(), "CREATE TABLE posthorn.only_in_one (id int)"); err != nil {
		t.Fatalf("the schema posthorn should exist: %v", err)
	}
	var seen bool
	if err := two.QueryRowContext(t.Context(), "SELECT to_regclass('posthorn.only_in_one') IS NOT NULL").Scan(&seen); err != nil {
		t.Fatal(err)
	}
	if seen {
		t.Error("one test's table is visible to another test")
	}
}

func TestADatabaseIsDroppedAfterItsTestEvenWithAnOpenConnection(t *testing.T) {
	t.Parallel()
	var dsn string
	var leftOpen *sql.DB
	t.Run("user", func(t *testing.T) { // not parallel: it has to end before its parent continues
		dsn = pgtest.URL(t)
		var err error
		if leftOpen, err = sql.Open("postgres", dsn); err != nil {
			t.Fatal(err)
		}
		if err := leftOpen.PingContext(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
	t.Cleanup(func() { _ = leftOpen.Close() })

	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	db := pgtest.New(t)
	var exists bool
	err = db.QueryRowContext(t.Context(), "SELECT EXISTS (SELECT 1 FROM pg_database WHERE datname = $1)", strings.TrimPrefix(u.Path, "/")).Scan(&exists)
	if err != nil {
		t.Fatal(err)
	}
	if exists {
		t.Errorf("database %s is still there after its test", u.Path)
	}
}

func TestManyTestsCanGetDatabasesAtOnce(t *testing.T) {
	t.Parallel()
	var wg sync.WaitGroup
	for range 12 {
		wg.Go(func() {
			db := pgtest.New(t)
			if err := db.PingContext(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

func TestAnUnfinishedTemplateIsBuiltAgain(t *testing.T) {
	t.Parallel()
	server := os.Getenv("DATABASE_URL")
	admin, err := sql.Open("postgres", server)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = admin.Close() })

	// An unmarked database with the template's name stands for a builder that
	// crashed half-way.
	name := "posthorn_template_halfmade_" + strings.ToLower(t.Name()[:8])
	if _, err := admin.ExecContext(t.Context(), `DROP DATABASE IF EXISTS "`+name+`"`); err != nil {
		t.Fatal(err)
	}
	if _, err := admin.ExecContext(t.Context(), `CREATE DATABASE "`+name+`"`); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pgtest.DropTemplate(t, admin, name) })

	if err := pgtest.EnsureTemplateNamed(t.Context(), admin, server, name); err != nil {
		t.Fatal(err)
	}
	var marked bool
	if err := admin.QueryRowContext(t.Context(), "SELECT datistemplate FROM pg_database WHERE datname = $1", name).Scan(&marked); err != nil {
		t.Fatal(err)
	}
	if !marked {
		t.Error("the half-made template was mistaken for a finished one")
	}
}

func TestTheFingerprintFollowsNamesAndContents(t *testing.T) {
	t.Parallel()
	sum := func(files fstest.MapFS) string {
		t.Helper()
		s, err := pgtest.Fingerprint(files)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	base := sum(fstest.MapFS{"1.sql": {Data: []byte("ab")}, "2.sql": {Data: []byte("c")}})
	for name, files := range map[string]fstest.MapFS{
		"a content changed":            {"1.sql": {Data: []byte("ax")}, "2.sql": {Data: []byte("c")}},
		"bytes moved to the next file": {"1.sql": {Data: []byte("a")}, "2.sql": {Data: []byte("bc")}},
		"a file renamed":               {"1.sql": {Data: []byte("ab")}, "3.sql": {Data: []byte("c")}},
		"a file added":                 {"1.sql": {Data: []byte("ab")}, "2.sql": {Data: []byte("c")}, "3.sql": {}},
	} {
		if sum(files) == base {
			t.Errorf("%s: the fingerprint stayed the same", name)
		}
	}
}

func BenchmarkNew(b *testing.B) {
	for b.Loop() {
		pgtest.URL(b)
	}
}
