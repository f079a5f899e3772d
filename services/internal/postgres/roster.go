package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/lib/pq"

	"posthorn/services/internal/subscription"
)

// ChangedSubscriptions are those that changed in the time before now, by the
// clock of Postgres, deleted ones included. Their secrets are sealed.
func ChangedSubscriptions(ctx context.Context, q Queryer, within time.Duration) ([]subscription.Subscription, error) {
	return querySubscriptions(ctx, q, `
		SELECT `+subscriptionColumns+` FROM posthorn.subscriptions
		WHERE updated_at >= clock_timestamp() - make_interval(secs => $1)
		ORDER BY id`, within.Seconds())
}

// AllSubscriptions are all there are, and those that were deleted in the last
// ten minutes. Their secrets are sealed.
func AllSubscriptions(ctx context.Context, q Queryer) ([]subscription.Subscription, error) {
	return querySubscriptions(ctx, q, `
		SELECT `+subscriptionColumns+` FROM posthorn.subscriptions
		WHERE deleted_at IS NULL OR deleted_at > clock_timestamp() - interval '10 minutes'
		ORDER BY id`)
}

// HaveQueues are those of the subscriptions that the relay has reached in the
// log and declared the queues of.
func HaveQueues(ctx context.Context, q Queryer, ids []subscription.ID) ([]subscription.ID, error) {
	uuids := make([]string, len(ids))
	for i, id := range ids {
		uuids[i] = id.UUID()
	}
	rows, err := q.QueryContext(ctx,
		`SELECT subscription_id FROM posthorn.routes WHERE subscription_id = ANY($1::uuid[])`, pq.Array(uuids))
	if err != nil {
		return nil, Translate(fmt.Errorf("read which subscriptions have queues: %w", err))
	}
	defer func() { _ = rows.Close() }()
	var there []subscription.ID
	for rows.Next() {
		var id uuid.UUID
		if err := rows.Scan(&id); err != nil {
			return nil, Translate(fmt.Errorf("read which subscriptions have queues: %w", err))
		}
		there = append(there, subscription.FromUUID(id))
	}
	if err := rows.Err(); err != nil {
		return nil, Translate(fmt.Errorf("read which subscriptions have queues: %w", err))
	}
	return there, nil
}
