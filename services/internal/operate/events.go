package operate

import (
	"context"

	"posthorn/events"
	"posthorn/outbox"
	"posthorn/services/internal/account"
	"posthorn/services/internal/audit"
	"posthorn/services/internal/eventlog"
	"posthorn/services/internal/postgres"
	"posthorn/services/internal/subscription"
)

// AppendGroup appends events of several requests with one commit. Each has the
// account of its actor, and its own result or error.
func (o *Operations) AppendGroup(ctx context.Context, group []events.Event) ([]eventlog.Appended, error) {
	return eventlog.AppendGroup(ctx, o.db, group)
}

// AppendBatch appends all of the events or none. With a key the same batch again
// has no further effect.
func (o *Operations) AppendBatch(ctx context.Context, by account.Actor, key string, batch []events.Event) ([]outbox.Result, error) {
	return eventlog.AppendBatch(ctx, o.db, by.Account, key, batch)
}

// Events returns a page of the actor's events.
func (o *Operations) Events(ctx context.Context, by account.Actor, f eventlog.Filter) (postgres.Page[eventlog.Record], error) {
	f.Account = by.Account
	return eventlog.List(ctx, o.db, f)
}

// Event returns one of the actor's events.
func (o *Operations) Event(ctx context.Context, by account.Actor, id string) (eventlog.Record, error) {
	// The database would refuse some texts that cannot be an event's id.
	if events.ValidateID(id) != nil {
		return eventlog.Record{}, postgres.ErrNotFound
	}
	return eventlog.ByID(ctx, o.db, by.Account, id)
}

// EventDeliveries explains an event for a page of subscriptions, in the order
// of their ids; with owed only for those that have a delivery.
func (o *Operations) EventDeliveries(ctx context.Context, event eventlog.Record, owed bool, after subscription.ID, limit int) (postgres.Page[audit.EventDelivery], error) {
	return audit.EventDeliveries(ctx, o.db, event, owed, after, limit)
}
