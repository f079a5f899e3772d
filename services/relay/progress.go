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

// ErrFenced is returned by Advance when the position is no longer where the
// caller left it: another relay has taken over.
var ErrFenced = errors.New("another relay has moved the position")

// Route is what the relay knows of a subscription as of its position.
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
	// Changed routes, as they are now; those with the status deleted go.
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

// Advance enters in the ledger what is owed and moves the relay's position,
// in one transaction, and only if the position is still where it was.
// A delivery that was finished before this commits is left as it is. What is
// one statement goes through q, which may keep it prepared on the connection.
func Advance(ctx context.Context, conn *sql.Conn, q postgres.Queryer, p Progress) error {
	if len(p.Changed) == 0 && len(p.SetAside) == 0 {
		return advanceAlone(ctx, q, p)
	}
	tx, err := conn.BeginTx(ctx, nil)
	if err != nil {
		return postgres.Translate(fmt.Errorf("begin to advance: %w", err))
	}
	if err := advanceTx(ctx, tx, p); err != nil {
		_ = tx.Rollback() // a connection that cannot is dropped
		return postgres.Translate(err)
	}
	if err := tx.Commit(); err != nil {
		return postgres.Translate(fmt.Errorf("commit the relay's position: %w", err))
	}
	return nil
}

// advanceAlone is Advance in one statement, for where no route has changed.
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
	// In this order: what is owed is entered by the routes as they are changed.
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
	// Last: a delivery may enter what it has tried, or a replay what it has
	// begun, until this statement's snapshot.
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

// setResend notes that what has been entered in the ledger by now and has not ended is to be sent
// again.
func setResend(ctx context.Context, conn *sql.Conn) error {
	if _, err := conn.ExecContext(ctx, `
		UPDATE posthorn.readers SET resend_before = clock_timestamp() WHERE name = 'relay'`); err != nil {
		return postgres.Translate(fmt.Errorf("note that deliveries are to be sent again: %w", err))
	}
	return nil
}

// resendBefore is when setResend was called and clearResend was not, since.
func resendBefore(ctx context.Context, conn *sql.Conn) (before sql.NullTime, err error) {
	err = conn.QueryRowContext(ctx, `SELECT resend_before FROM posthorn.readers WHERE name = 'relay'`).Scan(&before)
	if err != nil {
		return sql.NullTime{}, postgres.Translate(fmt.Errorf("read what is to be sent again: %w", err))
	}
	return before, nil
}

// clearResend notes that all of that has been sent again.
func clearResend(ctx context.Context, q postgres.Queryer, before time.Time) error {
	if _, err := q.ExecContext(ctx, `
		UPDATE posthorn.readers SET resend_before = NULL WHERE name = 'relay' AND resend_before = $1`, before); err != nil {
		return postgres.Translate(fmt.Errorf("note that deliveries were sent again: %w", err))
	}
	return nil
}
