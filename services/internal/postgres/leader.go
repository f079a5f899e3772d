package postgres

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"time"
)

// LeaseTimeout is how long a leader may go without a statement on its
// connection before Postgres ends the session and, with it, the leadership.
const LeaseTimeout = 15 * time.Second

// Lead is the session by which one process of a kind is the leader.
type Lead struct {
	conn     *sql.Conn
	prepared *Prepared
}

// TryLead acquires the leadership under a name, or returns nil if another
// process has it. It lasts as long as the session: it is lost with the
// connection, and Postgres disconnects a process that hangs for LeaseTimeout,
// so that a standby can take over.
func TryLead(ctx context.Context, db *sql.DB, name string) (*Lead, error) {
	conn, err := db.Conn(ctx)
	if err != nil {
		return nil, Translate(fmt.Errorf("connect to lead: %w", err))
	}
	l := &Lead{conn: conn, prepared: NewPrepared(conn)}
	var leads bool
	err = conn.QueryRowContext(ctx, `
		SELECT set_config('idle_session_timeout', $2, false) IS NOT NULL
		   AND set_config('idle_in_transaction_session_timeout', $2, false) IS NOT NULL
		   AND set_config('plan_cache_mode', 'force_generic_plan', false) IS NOT NULL
		   AND set_config('enable_seqscan', 'off', false) IS NOT NULL
		   AND pg_try_advisory_lock(hashtextextended('posthorn.lead.' || $1, 0))`,
		name, fmt.Sprintf("%dms", LeaseTimeout.Milliseconds())).Scan(&leads)
	if err != nil || !leads {
		return nil, errors.Join(Translate(err), l.Release())
	}
	return l, nil
}

// Conn is the session: statements that must not run without the leadership go
// through it.
func (l *Lead) Conn() *sql.Conn { return l.conn }

// Prepared are statements of that session that run often. Their plans are made
// once, perhaps while the tables are empty, so sequential scans are off there.
func (l *Lead) Prepared() *Prepared { return l.prepared }

// Check fails if the leadership is lost, and otherwise renews it.
func (l *Lead) Check(ctx context.Context) error {
	if _, err := l.conn.ExecContext(ctx, `SELECT 1`); err != nil {
		return Translate(fmt.Errorf("renew leadership: %w", err))
	}
	return nil
}

// Hold renews the leadership during work that does not use its connection. If
// the leadership is lost, the work's context ends and the error says so.
func (l *Lead) Hold(ctx context.Context, work func(ctx context.Context)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		work(ctx)
	}()
	ticker := time.NewTicker(LeaseTimeout / 5)
	defer ticker.Stop()
	for {
		select {
		case <-done:
			return nil
		case <-ticker.C:
		}
		if err := l.Check(ctx); err != nil {
			cancel()
			<-done
			return err
		}
	}
}

// Release gives up the leadership by ending the session, which works in any
// state of the session.
func (l *Lead) Release() error {
	// This error from Raw makes database/sql close the connection instead of
	// passing its settings and locks to the next user of the pool.
	_ = l.conn.Raw(func(any) error { return driver.ErrBadConn })
	if err := l.conn.Close(); err != nil && !errors.Is(err, sql.ErrConnDone) {
		return fmt.Errorf("release leadership: %w", err)
	}
	return nil
}
