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

// ErrSchemaOutdated is returned by CheckSchema if migrations are missing.
var ErrSchemaOutdated = errors.New("database is not migrated")

// CheckSchema checks that the database is reachable and has every migration
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

// Describe describes an error that keeps a part from working, in words that
// anyone may see: the error itself may contain addresses. It returns "" for an
// unknown error.
func Describe(err error) string {
	if refusal, ok := errors.AsType[*pq.Error](err); ok {
		switch {
		case refusal.Code.Class() == "28": // invalid_authorization_specification
			return "Postgres refuses the user or the password (DATABASE_URL)"
		case refusal.Code == "3D000": // invalid_catalog_name
			return "Postgres has no such database (DATABASE_URL)"
		case refusal.Code == "42501": // insufficient_privilege
			return "Postgres refuses a permission that is needed"
		case refusal.Code == "42P01", refusal.Code == "42703", refusal.Code == "42883", refusal.Code == "3F000":
			return "the database is not migrated to what this program needs: run posthorn migrate"
		}
	}
	switch {
	case errors.Is(err, ErrSchemaOutdated):
		return ErrSchemaOutdated.Error() + ": run posthorn migrate"
	case errors.Is(err, ErrUnavailable):
		return "the database cannot be reached"
	}
	return ""
}
