package ledger

import (
	"context"
	"fmt"

	"github.com/google/uuid"

	"posthorn/services/internal/postgres"
	"posthorn/services/internal/subscription"
)

// AskDeadQueueCheck makes the leading relay empty the dead-letter queue of a
// subscription if it has no dead deliveries left.
func AskDeadQueueCheck(ctx context.Context, q postgres.Queryer, id subscription.ID) error {
	if _, err := q.ExecContext(ctx, `
		INSERT INTO posthorn.dead_queue_checks (subscription_id) VALUES ($1) ON CONFLICT DO NOTHING`, id.UUID()); err != nil {
		return postgres.Translate(fmt.Errorf("request a check of the dead-letter queue: %w", err))
	}
	return nil
}

// DeadQueueCheck is a subscription whose dead letters were redriven or purged.
type DeadQueueCheck struct {
	Subscription subscription.ID
	// Left: some of its deliveries are dead, so the queue stays as it is.
	Left bool
}

// DeadQueueChecks returns the requested checks.
func DeadQueueChecks(ctx context.Context, q postgres.Queryer) ([]DeadQueueCheck, error) {
	return postgres.Collect(ctx, q, "read dead-letter queues to empty", func(scan func(...any) error) (c DeadQueueCheck, err error) {
		var id uuid.UUID
		err = scan(&id, &c.Left)
		c.Subscription = subscription.FromUUID(id)
		return c, err
	}, `
		SELECT c.subscription_id, EXISTS (
			SELECT 1 FROM posthorn.deliveries d WHERE d.subscription_id = c.subscription_id AND d.status = 'dead')
		FROM posthorn.dead_queue_checks c ORDER BY c.subscription_id`)
}

// DeadQueueChecked records that a check is done.
func DeadQueueChecked(ctx context.Context, q postgres.Queryer, id subscription.ID) error {
	if _, err := q.ExecContext(ctx, `DELETE FROM posthorn.dead_queue_checks WHERE subscription_id = $1`, id.UUID()); err != nil {
		return postgres.Translate(fmt.Errorf("record that a dead-letter queue was checked: %w", err))
	}
	return nil
}
