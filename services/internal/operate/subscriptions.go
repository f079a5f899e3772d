package operate

import (
	"context"
	"database/sql"

	"posthorn/services/internal/eventlog"
	"posthorn/services/internal/postgres"
	"posthorn/services/internal/replay"
	"posthorn/services/internal/subscription"
)

// Subscribe is CreateSubscription for a subscription that may also get past
// events: with a place, a replay of the events that it matches from there up to
// its own record, where the live stream begins.
func Subscribe(ctx context.Context, db *sql.DB, s subscription.Subscription, from eventlog.Place) (created subscription.Subscription, err error) {
	err = postgres.CommitTx(ctx, db, func(tx *sql.Tx) (err error) {
		if created, err = subscription.CreateTx(ctx, tx, s); err != nil || from.IsZero() || from.Now {
			return err
		}
		// Events below the record are settled once the relay has reached it,
		// and the replay waits for that.
		return replay.PastTx(ctx, tx, s, from, created.Since-1)
	})
	return created, err
}
