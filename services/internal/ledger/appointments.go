package ledger

import (
	"context"
	"fmt"
	"time"

	"github.com/lib/pq"

	"posthorn/services/internal/postgres"
	"posthorn/services/internal/subscription"
)

// WaitingSubscriptions are those with deliveries that wait for a retry.
func WaitingSubscriptions(ctx context.Context, q postgres.Queryer) ([]subscription.ID, error) {
	return postgres.Collect(ctx, q, "find deliveries that wait for a retry", subscription.ScanID, `
		SELECT DISTINCT subscription_id FROM posthorn.deliveries WHERE next_attempt_at IS NOT NULL AND status = 'retrying'`)
}

// PullIn moves the next attempts of a subscription's deliveries to where delays,
// the latest after each attempt, would have them if the attempt before had
// failed now: never later than they are, and at once where there are no more
// delays. What the receiver has asked to wait for (Retry-After) stays. It takes
// at most limit of them and returns how many it has moved; the sweeper sends
// them when their time has come, and their old messages count for nothing.
func PullIn(ctx context.Context, q postgres.Queryer, id subscription.ID, delays []time.Duration, limit int) (moved int64, err error) {
	micros := make([]int64, len(delays))
	for i, d := range delays {
		micros[i] = d.Microseconds()
	}
	// A row that is locked is being finished or made anew.
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
