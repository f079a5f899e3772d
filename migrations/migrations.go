// Package migrations holds Posthorn's schema as numbered SQL files and migrates
// a database to it.
//
// Several starting programs may call Up at once: one migrates, the others wait
// for it and find nothing to do. Each file runs in its own transaction with a
// lock timeout and a statement timeout, so that a migration fails, and can be
// retried, rather than queueing behind a long query and blocking all other
// queries. Everything is in the schema posthorn.
package migrations

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"

	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/database"
)

// FS holds the migrations, so that the schema can be fingerprinted.
//
//go:embed *.sql
var FS embed.FS

// lockKey is the session-level advisory lock that admits one migrator.
const lockKey = 0x506f7374686f726e // "Posthorn"

// Up applies the missing migrations in order. It returns the first error of a
// migration, with the migrations before it applied.
func Up(ctx context.Context, db *sql.DB) (err error) {
	conn, err := db.Conn(ctx)
	if err != nil {
		return fmt.Errorf("connect to migrate: %w", err)
	}
	defer func() { err = errors.Join(err, conn.Close()) }()

	// goose takes its own lock after looking for its table; ours also covers
	// creating the schema of that table.
	if _, err := conn.ExecContext(ctx, "SELECT pg_advisory_lock($1)", int64(lockKey)); err != nil {
		return fmt.Errorf("wait for other migrators: %w", err)
	}
	defer func() {
		_, unlockErr := conn.ExecContext(context.WithoutCancel(ctx), "SELECT pg_advisory_unlock($1)", int64(lockKey))
		err = errors.Join(err, unlockErr)
	}()
	if _, err := conn.ExecContext(ctx, "CREATE SCHEMA IF NOT EXISTS posthorn"); err != nil {
		return fmt.Errorf("create schema posthorn: %w", err)
	}

	store, err := database.NewStore(database.DialectPostgres, "posthorn.goose_db_version")
	if err != nil {
		return fmt.Errorf("open version table: %w", err)
	}
	provider, err := goose.NewProvider("", db, FS, goose.WithStore(store), goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return fmt.Errorf("load migrations: %w", err)
	}
	if _, err := provider.Up(ctx); err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	return nil
}
