package postgres

import (
	"context"
	"database/sql"
	"fmt"
	"sync"
)

// Prepared is a Queryer that prepares its statements once and keeps them, for
// statements that run so often that planning them would cost more than running
// them. It is safe for concurrent use. Do not use it for statements that join
// or search: they would keep a plan from when the tables were empty.
type Prepared struct {
	db preparer

	mu         sync.Mutex
	statements map[string]*sql.Stmt
}

// preparer is a pool or a connection.
type preparer interface {
	PrepareContext(ctx context.Context, query string) (*sql.Stmt, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// NewPrepared returns a Prepared for a pool or a connection, with which its
// statements end.
func NewPrepared(db preparer) *Prepared {
	return &Prepared{db: db, statements: map[string]*sql.Stmt{}}
}

// ExecContext implements Queryer.
func (p *Prepared) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	statement, err := p.prepare(ctx, query) //nolint:sqlclosecheck // it is kept
	if err != nil {
		return nil, err
	}
	return statement.ExecContext(ctx, args...)
}

// QueryContext implements Queryer.
func (p *Prepared) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	statement, err := p.prepare(ctx, query) //nolint:sqlclosecheck // it is kept
	if err != nil {
		return nil, err
	}
	return statement.QueryContext(ctx, args...)
}

// QueryRowContext implements Queryer.
func (p *Prepared) QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row {
	statement, err := p.prepare(ctx, query) //nolint:sqlclosecheck // it is kept
	if err != nil {
		return p.db.QueryRowContext(ctx, query, args...) // which reports the error
	}
	return statement.QueryRowContext(ctx, args...)
}

func (p *Prepared) prepare(ctx context.Context, query string) (*sql.Stmt, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if statement, ok := p.statements[query]; ok {
		return statement, nil
	}
	// database/sql prepares it again on each connection of a pool that runs it.
	statement, err := p.db.PrepareContext(ctx, query) //nolint:sqlclosecheck // it is kept
	if err != nil {
		return nil, fmt.Errorf("prepare statement: %w", err)
	}
	p.statements[query] = statement
	return statement, nil
}
