package postgres

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"

	"github.com/lib/pq"

	"posthorn/migrations"
)

// ErrSchemaOutdated is returned by CheckSchema where migrations are missing.
var ErrSchemaOutdated = errors.New("database is not migrated")

// CheckSchema reports whether the database is there and has every migration
// that this program was built with.
func CheckSchema(ctx context.Context, q Queryer) error {
	want, err := newestMigration()
	if err != nil {
		return err
	}
	var have int64
	err = q.QueryRowContext(ctx, `
		SELECT coalesce(max(version_id), 0) FROM posthorn.goose_db_version WHERE is_applied`).Scan(&have)
	var missing *pq.Error
	if errors.As(err, &missing) && missing.Code == "42P01" { // undefined_table
		err = nil
	}
	if err != nil {
		return Translate(fmt.Errorf("read schema version: %w", err))
	}
	if have < want {
		return fmt.Errorf("%w: it is at version %d, want %d", ErrSchemaOutdated, have, want)
	}
	return nil
}

func newestMigration() (int64, error) {
	files, err := fs.Glob(migrations.FS, "*.sql")
	if err != nil {
		return 0, fmt.Errorf("list migrations: %w", err)
	}
	var newest int64
	for _, file := range files {
		number, _, _ := strings.Cut(file, "_")
		n, err := strconv.ParseInt(number, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("number of migration %s: %w", file, err)
		}
		newest = max(newest, n)
	}
	return newest, nil
}
