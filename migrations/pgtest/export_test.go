package pgtest

import (
	"database/sql"
	"testing"

	"github.com/lib/pq"
)

// Access for the external tests.
//
//nolint:gochecknoglobals // a test's window on unexported functions
var (
	EnsureTemplateNamed = ensureTemplateNamed
	Fingerprint         = fingerprint
)

// DropTemplate removes a template, which cannot be dropped while marked as one.
func DropTemplate(t *testing.T, admin *sql.DB, name string) {
	t.Helper()
	quoted := pq.QuoteIdentifier(name)
	for _, query := range []string{"ALTER DATABASE " + quoted + " IS_TEMPLATE false", "DROP DATABASE " + quoted} {
		if _, err := admin.Exec(query); err != nil { //nolint:noctx // runs in Cleanup, after the test's context
			t.Errorf("drop template: %v", err)
		}
	}
}
