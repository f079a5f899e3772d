package ledger

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/lib/pq"

	"posthorn/services/internal/postgres"
	"posthorn/services/internal/subscription"
)

// SweepGrace is how long a delivery may go without a first attempt before the
// sweeper checks whether the broker still has it.
const SweepGrace = 30 * time.Second

// Owed is a delivery to enter in the ledger.
type Owed struct {
	Position     int64
	Subscription subscription.ID
	EventID      string
	Cause        Cause
}

// EnterWhere returns the statement that enters owed deliveries in the ledger if
// they are not there yet; EnterArgs are its first parameters. A delivery owed to
// a subscription that was deleted in the same window of the log is cancelled
// from the start.
func EnterWhere(where string) string {
	return `
		INSERT INTO posthorn.deliveries (position, subscription_id, event_id, cause, status, next_attempt_at, finished_at)
		SELECT o.position, o.subscription_id, o.event_id, o.cause,
		       CASE WHEN r.subscription_id IS NULL THEN 'cancelled' ELSE 'pending' END,
		       CASE WHEN r.subscription_id IS NOT NULL THEN clock_timestamp() + $5::interval END,
		       CASE WHEN r.subscription_id IS NULL THEN clock_timestamp() END
		FROM unnest($1::bigint[], $2::uuid[], $3::text[], $4::text[]) AS o(position, subscription_id, event_id, cause)
		LEFT JOIN posthorn.routes r USING (subscription_id) ` + where + `
		ORDER BY o.position, o.subscription_id -- as all writers of several deliveries: no deadlocks
		ON CONFLICT DO NOTHING`
}

// EnterArgs returns the first five parameters of EnterWhere.
func EnterArgs(owed []Owed) []any {
	var (
		positions = make([]int64, len(owed))
		ids       = make([]string, len(owed))
		eventIDs  = make([]string, len(owed))
		causes    = make([]string, len(owed))
	)
	for i, o := range owed {
		positions[i], ids[i], eventIDs[i], causes[i] = o.Position, o.Subscription.UUID(), o.EventID, string(o.Cause)
	}
	return []any{pq.Array(positions), pq.Array(ids), pq.Array(eventIDs), pq.Array(causes), postgres.Interval(SweepGrace)}
}

// CancelTx ends the deliveries that are still owed to a deleted subscription.
func CancelTx(ctx context.Context, tx *sql.Tx, id subscription.ID) error {
	if _, err := tx.ExecContext(ctx, `
		UPDATE posthorn.deliveries
		SET status = 'cancelled', next_attempt_at = NULL, finished_at = clock_timestamp()
		WHERE subscription_id = $1 AND next_attempt_at IS NOT NULL`, id.UUID()); err != nil {
		return fmt.Errorf("cancel deliveries: %w", err)
	}
	return nil
}
