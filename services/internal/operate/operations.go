package operate

import (
	"context"
	"database/sql"

	"posthorn/services/internal/postgres"
	"posthorn/services/internal/subscription"
)

// Keyring seals and opens secrets and kept answers.
type Keyring interface{ subscription.Resealer }

// Operations are the verbs on one database. They may be used concurrently.
type Operations struct {
	db   *sql.DB
	keys Keyring
}

// New returns the verbs on a database. keys may be nil where nothing secret is
// made or kept, as in most commands.
func New(db *sql.DB, keys Keyring) *Operations { return &Operations{db: db, keys: keys} }

// Ready reports why the database cannot be used.
func (o *Operations) Ready(ctx context.Context) error { return postgres.CheckSchema(ctx, o.db) }

// MaxConnections is how many connections there are for the verbs, or 0 for no
// limit.
func (o *Operations) MaxConnections() int { return o.db.Stats().MaxOpenConnections }
