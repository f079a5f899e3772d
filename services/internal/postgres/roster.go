package postgres

import (
	"context"
	"time"

	"posthorn/services/internal/subscription"
)

// SubscriptionsSince are the subscriptions that changed at or after a time,
// deleted ones included; with the zero time all, of the deleted ones those of
// the last ten minutes. Their secrets are sealed.
func SubscriptionsSince(ctx context.Context, q Queryer, since time.Time) ([]subscription.Subscription, error) {
	return querySubscriptions(ctx, q, `
		SELECT `+subscriptionColumns+` FROM posthorn.subscriptions
		WHERE updated_at >= $1 AND (deleted_at IS NULL OR deleted_at > clock_timestamp() - interval '10 minutes')
		ORDER BY id`, since)
}
