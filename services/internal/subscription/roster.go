package subscription

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/lib/pq"

	"posthorn/services/internal/postgres"
)

// Changed are those that changed in the time before now, by the
// clock of Postgres, deleted ones included. Their secrets are sealed.
func Changed(ctx context.Context, q postgres.Queryer, within time.Duration) ([]Subscription, error) {
	return Query(ctx, q, `
		SELECT `+Columns+` FROM posthorn.subscriptions
		WHERE updated_at >= clock_timestamp() - make_interval(secs => $1)
		ORDER BY id`, within.Seconds())
}

// All are all there are, and those that were deleted in the last
// ten minutes. Their secrets are sealed.
func All(ctx context.Context, q postgres.Queryer) ([]Subscription, error) {
	return Query(ctx, q, `
		SELECT `+Columns+` FROM posthorn.subscriptions
		WHERE deleted_at IS NULL OR deleted_at > clock_timestamp() - interval '10 minutes'
		ORDER BY id`)
}

// HaveQueues are those of the subscriptions that the relay has reached in the
// log and declared the queues of.
func HaveQueues(ctx context.Context, q postgres.Queryer, ids []ID) ([]ID, error) {
	uuids := make([]string, len(ids))
	for i, id := range ids {
		uuids[i] = id.UUID()
	}
	rows, err := q.QueryContext(ctx,
		`SELECT subscription_id FROM posthorn.routes WHERE subscription_id = ANY($1::uuid[])`, pq.Array(uuids))
	if err != nil {
		return nil, postgres.Translate(fmt.Errorf("read which subscriptions have queues: %w", err))
	}
	defer func() { _ = rows.Close() }()
	var there []ID
	for rows.Next() {
		var id uuid.UUID
		if err := rows.Scan(&id); err != nil {
			return nil, postgres.Translate(fmt.Errorf("read which subscriptions have queues: %w", err))
		}
		there = append(there, FromUUID(id))
	}
	if err := rows.Err(); err != nil {
		return nil, postgres.Translate(fmt.Errorf("read which subscriptions have queues: %w", err))
	}
	return there, nil
}
