package operate

import (
	"context"
	"database/sql"

	"posthorn/services/internal/eventlog"
	"posthorn/services/internal/postgres"
	"posthorn/services/internal/subscription"
)

// Keyring seals and opens secrets and stored responses.
type Keyring interface{ subscription.Resealer }

// Operations are the operations on one database. They are safe for concurrent use.
type Operations struct {
	db    *sql.DB
	keys  Keyring
	waker *eventlog.Waker
}

// New returns the operations on a database. keys may be nil if nothing secret
// is created or stored, as in most commands.
func New(db *sql.DB, keys Keyring) *Operations {
	return &Operations{db: db, keys: keys, waker: eventlog.NewWaker(db)}
}

// WakeNear sets what wakes a relay in this process: see eventlog.Waker.
func (o *Operations) WakeNear(near func() bool) { o.waker.Near = near }

// Wake makes a waiting relay look at once for what was appended.
func (o *Operations) Wake() { o.waker.Wake() }

// Ready reports why the database cannot be used.
func (o *Operations) Ready(ctx context.Context) error { return postgres.CheckSchema(ctx, o.db) }

// MaxConnections is the maximum number of database connections, or 0 for no
// limit.
func (o *Operations) MaxConnections() int { return o.db.Stats().MaxOpenConnections }
