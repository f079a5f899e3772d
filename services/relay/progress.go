package relay

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/lib/pq"

	"posthorn/events"
	"posthorn/services/internal/eventlog"
	"posthorn/services/internal/ledger"
	"posthorn/services/internal/postgres"
	"posthorn/services/internal/subscription"
)

// ErrFenced is returned by Advance when the position has moved since the caller
// last set it: another relay has taken over.
var ErrFenced = errors.New("another relay has moved the position")

// Route is the relay's view of a subscription as of the relay's position.
type Route struct {
	ID         subscription.ID
	Account    string
	EventTypes []events.Pattern
	Status     subscription.Status
	// Since is the position of the record that created it.
	Since int64
}

// Progress is what the relay did with the log above From, through Through.
type Progress struct {
	From, Through int64
	Owed          []ledger.Owed
	// Changed routes, in their new state; those with the status deleted are removed.
	Changed []Route
	// SetAside are records that could not be forwarded as they should.
	SetAside []eventlog.Quarantined
}

// Routes are the subscriptions as of the relay's position.
func Routes(ctx context.Context, q postgres.Queryer) ([]Route, error) {
	return postgres.Collect(ctx, q, "read routes", scanRoute, `
		SELECT subscription_id, account, event_types, status, since FROM posthorn.routes ORDER BY subscription_id`)
}

func scanRoute(scan func(...any) error) (Route, error) {
	var (
		r     Route
		id    uuid.UUID
		types []string
	)
	if err := scan(&id, &r.Account, pq.Array(&types), &r.Status, &r.Since); err != nil {
		return Route{}, fmt.Errorf("read route: %w", err)
	}
	r.ID = subscription.FromUUID(id)
	for _, t := range types {
		r.EventTypes = append(r.EventTypes, events.Pattern(t))
	}
	return r, nil
}

// Advance enters the owed deliveries in the ledger and moves the relay's
// position, in one transaction, and only if the position has not changed.
// A delivery that finished before the commit is left as it is. A single
// statement goes through q, which may keep it prepared on the connection.
func Advance(ctx context.Context, conn *sql.Conn, q postgres.Queryer, p Progress) error {
	if len(p.Changed) == 0 && len(p.SetAside) == 0 {
		return advanceAlone(ctx, q, p)
	}
	tx, err := conn.BeginTx(ctx, nil)
	if err != nil {
		return postgres.Translate(fmt.Errorf("begin to advance: %w", err))
	}
	if err := advanceTx(ctx, tx, p); err != nil {
		_ = tx.Rollback() // a connection that cannot roll back is dropped
		return postgres.Translate(err)
	}
	if err := tx.Commit(); err != nil {
		return postgres.Translate(fmt.Errorf("commit the relay's position: %w", err))
	}
	return nil
}

// advanceAlone is Advance in one statement, for when no route has changed.
func advanceAlone(ctx context.Context, q postgres.Queryer, p Progress) error {
	var moved int
	err := q.QueryRowContext(ctx, `
		WITH moved AS (
			UPDATE posthorn.readers SET position = $7, updated_at = clock_timestamp()
			WHERE name = 'relay' AND position = $6 RETURNING 1
		), entered AS (`+ledger.EnterWhere(`WHERE EXISTS (SELECT FROM moved)`)+`)
		SELECT count(*) FROM moved`, append(ledger.EnterArgs(p.Owed), p.From, p.Through)...).Scan(&moved)
	if err != nil {
		return postgres.Translate(fmt.Errorf("advance: %w", err))
	}
	if moved != 1 {
		return ErrFenced
	}
	return nil
}

func advanceTx(ctx context.Context, tx *sql.Tx, p Progress) error {
	// In this order: owed deliveries are entered by the changed routes.
	if err := advanceAlone(ctx, tx, Progress{From: p.From, Through: p.Through}); err != nil {
		return err
	}
	if err := eventlog.SetAside(ctx, tx, p.SetAside...); err != nil {
		return err
	}
	for _, r := range p.Changed {
		if err := changeRouteTx(ctx, tx, r); err != nil {
			return err
		}
	}
	if len(p.Owed) > 0 {
		if _, err := tx.ExecContext(ctx, ledger.EnterWhere(""), ledger.EnterArgs(p.Owed)...); err != nil {
			return fmt.Errorf("enter deliveries in the ledger: %w", err)
		}
	}
	// Last: until this statement's snapshot, deliveries may record attempts and
	// replays may begin runs.
	for _, r := range p.Changed {
		if r.Status == subscription.Deleted {
			if err := ledger.CancelTx(ctx, tx, r.ID); err != nil {
				return err
			}
		}
	}
	return nil
}

func changeRouteTx(ctx context.Context, tx *sql.Tx, r Route) error {
	if r.Status == subscription.Deleted {
		if _, err := tx.ExecContext(ctx, `DELETE FROM posthorn.routes WHERE subscription_id = $1`, r.ID.UUID()); err != nil {
			return fmt.Errorf("remove route: %w", err)
		}
		return nil
	}
	types := make([]string, len(r.EventTypes))
	for i, p := range r.EventTypes {
		types[i] = string(p)
	}
	if _, err := tx.ExecContext(ctx, `
		INSERT INTO posthorn.routes (subscription_id, account, event_types, status, since) VALUES ($1, $2, $3, $4, $5)
		ON CONFLICT (subscription_id) DO UPDATE SET event_types = excluded.event_types, status = excluded.status`,
		r.ID.UUID(), r.Account, pq.Array(types), string(r.Status), r.Since); err != nil {
		return fmt.Errorf("change route: %w", err)
	}
	return nil
}

// setResend records that all deliveries that are in the ledger now and have not ended must be sent
// again.
func setResend(ctx context.Context, conn *sql.Conn) error {
	if _, err := conn.ExecContext(ctx, `
		UPDATE posthorn.readers SET resend_before = clock_timestamp() WHERE name = 'relay'`); err != nil {
		return postgres.Translate(fmt.Errorf("record that deliveries must be sent again: %w", err))
	}
	return nil
}

// resendBefore is the time of the last setResend, unless clearResend was called since.
func resendBefore(ctx context.Context, conn *sql.Conn) (before sql.NullTime, err error) {
	err = conn.QueryRowContext(ctx, `SELECT resend_before FROM posthorn.readers WHERE name = 'relay'`).Scan(&before)
	if err != nil {
		return sql.NullTime{}, postgres.Translate(fmt.Errorf("read which deliveries must be sent again: %w", err))
	}
	return before, nil
}

// clearResend records that all of these deliveries have been sent again.
func clearResend(ctx context.Context, q postgres.Queryer, before time.Time) error {
	if _, err := q.ExecContext(ctx, `
		UPDATE posthorn.readers SET resend_before = NULL WHERE name = 'relay' AND resend_before = $1`, before); err != nil {
		return postgres.Translate(fmt.Errorf("record that deliveries were sent again: %w", err))
	}
	return nil
}
