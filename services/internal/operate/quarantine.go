package operate

import (
	"context"
	"fmt"

	"posthorn/services/internal/audit"
	"posthorn/services/internal/eventlog"
	"posthorn/services/internal/postgres"
	"posthorn/services/internal/subscription"
)

// ReleaseQuarantined retries a record that was set aside. A held event is owed,
// from now on, to the subscriptions that were live at its position; for a held
// change the subscription is recorded again as it is now. A rerouted event has
// its deliveries and only leaves the list. It returns ErrUnfit if the record
// still cannot be forwarded, and ErrState if it is not set aside.
func (o *Operations) ReleaseQuarantined(ctx context.Context, position int64) (eventlog.Quarantined, error) {
	held, err := eventlog.QuarantinedAt(ctx, o.db, position)
	if err != nil {
		return held, err
	}
	if held.Status == eventlog.Released {
		return held, fmt.Errorf("%w: record %d was released already", postgres.ErrState, position)
	}
	if held.Status != eventlog.Rerouted {
		record, err := eventlog.At(ctx, o.db, position)
		if err == nil {
			err = record.Check()
		}
		if err != nil {
			return held, err
		}
		if record.Kind == eventlog.KindSubscription {
			_, err := subscription.Update(ctx, o.db, record.Account, subscription.ID(record.Subject),
				func(*subscription.Subscription) error { return nil })
			if err != nil {
				return held, fmt.Errorf("record %s again: %w", record.Subject, err)
			}
		}
	}
	released, err := eventlog.MoveQuarantined(ctx, o.db, position, held.Status, eventlog.Released)
	if err != nil || held.Status == eventlog.Rerouted || held.Kind == eventlog.KindSubscription {
		return released, err
	}
	// Crash window: the record counts as forwarded and its deliveries are not
	// in the ledger. An audit finds them as lost, and repairs them.
	_, err = audit.Run(ctx, o.db, audit.Options{After: position - 1, Through: position, Repair: true})
	return released, err
}

// Quarantined returns a record that was set aside, or postgres.ErrNotFound.
func (o *Operations) Quarantined(ctx context.Context, position int64) (eventlog.Quarantined, error) {
	return eventlog.QuarantinedAt(ctx, o.db, position)
}

// Quarantine lists records that were set aside, in the order of the log; with all
// also those that were released or dropped.
func (o *Operations) Quarantine(ctx context.Context, after int64, all bool, limit int) ([]eventlog.Quarantined, error) {
	return eventlog.ListQuarantined(ctx, o.db, after, all, limit)
}

// DropQuarantined gives up a held record.
func (o *Operations) DropQuarantined(ctx context.Context, position int64) (eventlog.Quarantined, error) {
	return eventlog.DropQuarantined(ctx, o.db, position)
}
