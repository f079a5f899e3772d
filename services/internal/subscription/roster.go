package subscription

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/lib/pq"

	"posthorn/services/internal/postgres"
)

// Changed returns the subscriptions that changed within the time before now, by
// the clock of Postgres, including deleted ones. Their secrets are sealed.
func Changed(ctx context.Context, q postgres.Queryer, within time.Duration) ([]Subscription, error) {
	return Query(ctx, q, `
		SELECT `+Columns+` FROM posthorn.subscriptions
		WHERE updated_at >= clock_timestamp() - make_interval(secs => $1)
		ORDER BY id`, within.Seconds())
}

// All returns all subscriptions, including those that were deleted in the last
// ten minutes. Their secrets are sealed.
func All(ctx context.Context, q postgres.Queryer) ([]Subscription, error) {
	return Query(ctx, q, `
		SELECT `+Columns+` FROM posthorn.subscriptions
		WHERE deleted_at IS NULL OR deleted_at > clock_timestamp() - interval '10 minutes'
		ORDER BY id`)
}

// HaveQueues returns those of the subscriptions whose record the relay has
// reached and whose queues it has declared.
func HaveQueues(ctx context.Context, q postgres.Queryer, ids []ID) ([]ID, error) {
	uuids := make([]string, len(ids))
	for i, id := range ids {
		uuids[i] = id.UUID()
	}
	return postgres.Collect(ctx, q, "read which subscriptions have queues", ScanID,
		`SELECT subscription_id FROM posthorn.routes WHERE subscription_id = ANY($1::uuid[])`, pq.Array(uuids))
}

// ScanID reads a row that is the id of a subscription.
func ScanID(scan func(...any) error) (ID, error) {
	var id uuid.UUID
	if err := scan(&id); err != nil {
		return "", fmt.Errorf("read id: %w", err)
	}
	return FromUUID(id), nil
}
