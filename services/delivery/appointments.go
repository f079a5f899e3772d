package delivery

import (
	"context"

	"posthorn/services/internal/ledger"
	"posthorn/services/internal/retry"
	"posthorn/services/internal/subscription"
)

const (
	// Each poll of the subscriptions pulls in up to pullAtOnce deliveries of each
	// of pullsALook subscriptions.
	pullAtOnce = 1000
	pullsALook = 10
)

// schedule returns the schedule of a subscription's deliveries.
func (s *Service) schedule(sub *subscription.Subscription) retry.Schedule {
	if sub.Schedule != nil {
		return sub.Schedule
	}
	return s.cfg.Schedule
}

// pullIn moves waiting retries to the time of the current schedule if that is
// sooner. A process does this for all subscriptions when it starts: the default
// schedule may have changed, and a process that saw a schedule change may have
// crashed before it got here. If several processes do it, it happens once.
func (r *roster) pullIn(ctx context.Context) error {
	if r.late == nil {
		ids, err := ledger.WaitingSubscriptions(ctx, r.service.db)
		if err != nil {
			return err
		}
		r.late = make(map[subscription.ID]struct{}, len(ids))
		for _, id := range ids {
			r.late[id] = struct{}{}
		}
	}
	pulls := 0
	for id := range r.late {
		if pulls++; pulls > pullsALook {
			return nil
		}
		sub, known := r.waiting[id]
		if c := r.active[id]; c != nil {
			sub, known = *c.settings.Load(), true
		}
		if !known { // paused or deleted: it is added again when it is resumed
			delete(r.late, id)
			continue
		}
		moved, err := ledger.PullIn(ctx, r.service.db, id, r.service.schedule(&sub).Latest(), pullAtOnce)
		if err != nil {
			return err
		}
		if moved > 0 {
			r.service.logger.Info("retries moved earlier by a shorter schedule", "subscription", id, "count", moved)
		}
		if moved < pullAtOnce {
			delete(r.late, id)
		}
	}
	return nil
}
