package relay

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sync/errgroup"

	"posthorn/services/internal/broker"
	"posthorn/services/internal/eventlog"
	"posthorn/services/internal/subscription"
)

// changesAtOnce is how many subscription changes are applied between checks of
// the time that they take.
const changesAtOnce = 64

// change is one control record and the route that results from it.
type change struct {
	position int64
	old      Route
	known    bool // old is set
	route    Route
}

// leadingChanges returns the leading changes of the records, up to a second change of
// the same subscription. Changes of different subscriptions touch different
// queues, so they can be applied concurrently.
func (b *batch) leadingChanges(records []eventlog.Record) []change {
	var changes []change
	taken := map[subscription.ID]bool{}
	for i := range records {
		r := &records[i]
		if r.Kind != eventlog.KindSubscription || len(changes) == changesAtOnce {
			break
		}
		c := change{position: r.Position}
		record, err := r.Change()
		if err != nil {
			b.setAside(r, eventlog.Held, err)
			changes = append(changes, c)
			continue
		}
		if taken[record.ID] {
			break
		}
		taken[record.ID] = true
		c.old, c.known = b.term.routes.get(record.ID)
		c.route = Route{
			ID: record.ID, Account: record.Account, EventTypes: record.EventTypes, Status: record.Status, Since: c.old.Since,
		}
		if !c.known {
			c.route.Since = r.Position
		}
		changes = append(changes, c)
	}
	return changes
}

// apply applies changes of different subscriptions to the topology,
// concurrently, and then to the routes. If one fails, progress is truncated to
// the changes before it; the next term undoes the changes after it.
func (b *batch) apply(ctx context.Context, changes []change) error {
	b.term.mu.Lock()
	defer b.term.mu.Unlock()
	failed := make([]error, len(changes))
	var g errgroup.Group
	g.SetLimit(declareAtOnce)
	for i := range changes {
		g.Go(func() error {
			failed[i] = b.shape(ctx, &changes[i])
			return nil
		})
	}
	_ = g.Wait() // the errors are in failed, each at its place
	for i, c := range changes {
		if failed[i] != nil {
			b.truncate(c.position)
			return fmt.Errorf("apply change of %s: %w", c.route.ID, failed[i])
		}
		if c.route.ID == "" {
			continue
		}
		b.term.routes.set(c.route)
		b.progress.Changed = append(b.progress.Changed, c.route)
		b.term.logger.Info("subscription changed", "subscription", c.route.ID, "status", c.route.Status, "position", c.position)
	}
	return nil
}

// shape applies one change to the topology.
func (b *batch) shape(ctx context.Context, c *change) error {
	switch {
	case c.route.ID == "":
		return nil
	case c.route.Status == subscription.Deleted:
		return b.term.topology.DeleteSubscription(ctx, string(c.route.ID))
	case c.known:
		return b.rebind(ctx, c.old, c.route)
	}
	if broker.OwnExchange(c.route.Account) { // the shared exchange is declared when the term begins
		if err := b.term.topology.DeclareShared(ctx, []string{c.route.Account}); err != nil {
			return fmt.Errorf("declare exchange of account %s: %w", c.route.Account, err)
		}
	}
	return b.term.declared(c.route.ID,
		b.term.topology.DeclareSubscription(ctx, string(c.route.ID), c.route.Account, bound(c.route)))
}

// rebind binds before it unbinds, so that replacing a pattern leaves no gap.
func (b *batch) rebind(ctx context.Context, old, route Route) error {
	was := b.term.routes.bound(old)
	if added := without(bound(route), was); len(added) > 0 {
		if err := b.term.topology.Bind(ctx, string(route.ID), route.Account, added); err != nil && !errors.Is(err, broker.ErrNotFound) {
			return fmt.Errorf("bind: %w", err)
		}
	}
	if gone := without(was, bound(route)); len(gone) > 0 {
		if err := b.term.topology.Unbind(ctx, string(route.ID), route.Account, gone); err != nil {
			return fmt.Errorf("unbind: %w", err)
		}
	}
	return nil
}
