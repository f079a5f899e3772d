package ledger

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"

	"posthorn/services/internal/postgres"
	"posthorn/services/internal/subscription"
)

// AskDeadQueueCheck has the leading relay empty the dead-letter queue of a
// subscription that has no dead deliveries left.
func AskDeadQueueCheck(ctx context.Context, q postgres.Queryer, id subscription.ID) error {
	if _, err := q.ExecContext(ctx, `
		INSERT INTO posthorn.dead_queue_checks (subscription_id) VALUES ($1) ON CONFLICT DO NOTHING`, id.UUID()); err != nil {
		return postgres.Translate(fmt.Errorf("ask for the dead-letter queue to be emptied: %w", err))
	}
	return nil
}

// DeadQueueCheck is a subscription whose dead letters were redriven or purged.
type DeadQueueCheck struct {
	Subscription subscription.ID
	// Left: some of its deliveries are dead, so the queue stays as it is.
	Left bool
}

// DeadQueueChecks are those that are asked for.
func DeadQueueChecks(ctx context.Context, q postgres.Queryer) (checks []DeadQueueCheck, err error) {
	rows, err := q.QueryContext(ctx, `
		SELECT c.subscription_id, EXISTS (
			SELECT 1 FROM posthorn.deliveries d WHERE d.subscription_id = c.subscription_id AND d.status = 'dead')
		FROM posthorn.dead_queue_checks c ORDER BY c.subscription_id`)
	if err != nil {
		return nil, postgres.Translate(fmt.Errorf("read dead-letter queues to empty: %w", err))
	}
	defer func() { err = postgres.Translate(errors.Join(err, rows.Close())) }()
	for rows.Next() {
		var (
			c  DeadQueueCheck
			id uuid.UUID
		)
		if err := rows.Scan(&id, &c.Left); err != nil {
			return nil, fmt.Errorf("read dead-letter queue to empty: %w", err)
		}
		c.Subscription = subscription.FromUUID(id)
		checks = append(checks, c)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read dead-letter queues to empty: %w", err)
	}
	return checks, nil
}

// DeadQueueChecked notes that a check is done.
func DeadQueueChecked(ctx context.Context, q postgres.Queryer, id subscription.ID) error {
	if _, err := q.ExecContext(ctx, `DELETE FROM posthorn.dead_queue_checks WHERE subscription_id = $1`, id.UUID()); err != nil {
		return postgres.Translate(fmt.Errorf("note that a dead-letter queue is emptied: %w", err))
	}
	return nil
}
