package ledger

import (
	"context"
	"time"

	"github.com/google/uuid"

	"posthorn/services/internal/postgres"
	"posthorn/services/internal/subscription"
)

// Unfinished is a delivery that has not ended.
type Unfinished struct {
	Position      int64
	Subscription  subscription.ID
	Run, Attempts int
	Cause         Cause
	// Wait is how long until its retry is due; 0 if it is due now.
	Wait time.Duration
}

// Cursor is where ReadUnfinished continues; zero is the beginning.
type Cursor struct {
	next         time.Time
	position     int64
	subscription uuid.UUID
}

// ReadUnfinished reads up to limit deliveries that have not ended and were entered before a time:
// those that wait for a first attempt, the oldest first, and among them those that wait for a
// retry, by due time. It returns none at the end.
func ReadUnfinished(ctx context.Context, q postgres.Queryer, before time.Time, after Cursor, limit int) ([]Unfinished, Cursor, error) {
	next := after
	list, err := postgres.Collect(ctx, q, "read unfinished deliveries", func(scan func(...any) error) (u Unfinished, err error) {
		var micros int64
		err = scan(&next.position, &next.subscription, &u.Run, &u.Attempts, &u.Cause, &next.next, &micros)
		u.Position, u.Subscription = next.position, subscription.FromUUID(next.subscription)
		u.Wait = time.Duration(micros) * time.Microsecond
		return u, err
	}, `
		SELECT position, subscription_id, run, attempts, cause, next_attempt_at,
		       CASE WHEN status = 'retrying' THEN
		           greatest(0, extract(epoch FROM next_attempt_at - clock_timestamp()) * 1000000)::bigint ELSE 0 END
		FROM posthorn.deliveries
		WHERE next_attempt_at IS NOT NULL AND created_at < $1 AND (next_attempt_at, position, subscription_id) > ($2, $3, $4)
		ORDER BY next_attempt_at, position, subscription_id LIMIT $5`,
		before, after.next, after.position, after.subscription, limit)
	return list, next, err
}

// CountWaiting counts, for each subscription with more than moreThan, the deliveries that were
// entered before a time and wait for a first attempt, paused subscriptions included.
func CountWaiting(ctx context.Context, q postgres.Queryer, before time.Time, moreThan int) ([]Backlog, error) {
	return postgres.Collect(ctx, q, "count waiting deliveries", scanBacklog, `
		SELECT subscription_id, count(*) FROM posthorn.deliveries
		WHERE next_attempt_at IS NOT NULL AND status = 'pending' AND created_at < $1
		GROUP BY subscription_id HAVING count(*) > $2 ORDER BY subscription_id`, before, moreThan)
}
