package ledger

import (
	"context"
	"fmt"
	"time"

	"github.com/lib/pq"

	"posthorn/services/internal/postgres"
	"posthorn/services/internal/subscription"
)

// WaitingSubscriptions returns the subscriptions with deliveries that wait for a retry.
func WaitingSubscriptions(ctx context.Context, q postgres.Queryer) ([]subscription.ID, error) {
	return postgres.Collect(ctx, q, "find deliveries that wait for a retry", subscription.ScanID, `
		SELECT DISTINCT subscription_id FROM posthorn.deliveries WHERE next_attempt_at IS NOT NULL AND status = 'retrying'`)
}

// PullIn moves the next attempts of a subscription's deliveries to the time that
// delays, the latest after each attempt, would give if the previous attempt had
// failed now: never later than they are, and at once if there are no more
// delays. A wait that the receiver requested (Retry-After) stays. PullIn moves at
// most limit of them and returns how many it has moved; the sweeper sends them
// when they are due, and their old messages are ignored.
func PullIn(ctx context.Context, q postgres.Queryer, id subscription.ID, delays []time.Duration, limit int) (moved int64, err error) {
	micros := make([]int64, len(delays))
	for i, d := range delays {
		micros[i] = d.Microseconds()
	}
	// A locked row is being finished or rescheduled.
	result, err := q.ExecContext(ctx, `
		WITH late AS (
			SELECT d.position, wanted.at
			FROM posthorn.deliveries d,
			     LATERAL (SELECT clock_timestamp() + coalesce(($2::bigint[])[d.attempts], 0) * interval '1 microsecond' AS at) wanted
			WHERE d.subscription_id = $1 AND `+Waiting+` AND d.next_attempt_at > wanted.at
			  AND NOT EXISTS (
			      SELECT FROM posthorn.attempts a
			      WHERE a.position = d.position AND a.subscription_id = d.subscription_id AND a.run = d.run AND a.number = d.attempts
			        AND EXISTS (SELECT FROM jsonb_object_keys(a.response_headers) AS h(name) WHERE lower(h.name) = 'retry-after'))
			ORDER BY d.position LIMIT $3
			FOR NO KEY UPDATE OF d SKIP LOCKED
		)
		UPDATE posthorn.deliveries d SET next_attempt_at = late.at
		FROM late WHERE d.position = late.position AND d.subscription_id = $1`,
		id.UUID(), pq.Array(micros), limit)
	if err != nil {
		return 0, postgres.Translate(fmt.Errorf("pull retries in: %w", err))
	}
	if moved, err = result.RowsAffected(); err != nil {
		return 0, fmt.Errorf("pull retries in: %w", err)
	}
	return moved, nil
}
