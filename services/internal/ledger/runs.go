package ledger

import (
	"context"
	"database/sql"

	"github.com/lib/pq"

	"posthorn/services/internal/postgres"
	"posthorn/services/internal/subscription"
)

// Runs selects the deliveries that begin a new run, and gives its cause.
type Runs struct {
	Cause Cause
	// OnlyDead: dead deliveries, and with OrWaiting those that wait for a retry.
	// Otherwise all deliveries that are not in flight, and new ones.
	OnlyDead, OrWaiting bool
}

// BeginRunsTx begins a new run of a subscription's deliveries of the events at
// the positions, and returns the resulting due deliveries in position order.
func BeginRunsTx(ctx context.Context, tx *sql.Tx, id subscription.ID, positions []int64, r Runs) ([]Due, error) {
	if len(positions) == 0 {
		return nil, nil
	}
	return postgres.Collect(ctx, tx, "begin runs", scanDue, `
		WITH begun AS (
			INSERT INTO posthorn.deliveries AS d (position, subscription_id, event_id, status, cause, run, next_attempt_at)
			SELECT o.position, $2, o.id, 'pending', $3, 1, clock_timestamp() + $4::interval
			FROM posthorn.outbox o WHERE o.position = ANY ($1) ORDER BY o.position
			ON CONFLICT (position, subscription_id) DO UPDATE
			SET status = 'pending', cause = excluded.cause, run = d.run + 1, attempts = 0, next_attempt_at = excluded.next_attempt_at,
			    claimed_until = NULL, last_status = NULL, last_error = NULL, finished_at = NULL
			WHERE d.status = 'dead' OR d.status IN ('delivered', 'cancelled') AND NOT $5 OR `+Waiting+` AND (NOT $5 OR $6)
			RETURNING d.position, d.run
		)
		SELECT o.position, o.kind, o.id, o.account, o.type, o.subject, o.data, o.metadata, o.attributes, o.occurred_at, o.recorded_at,
		       $2, begun.run, 0, $3
		FROM begun JOIN posthorn.outbox o USING (position) ORDER BY o.position`,
		pq.Array(positions), id.UUID(), r.Cause, postgres.Interval(SweepGrace), r.OnlyDead, r.OrWaiting)
}
