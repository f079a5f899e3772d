package delivery

import (
	"context"

	"posthorn/services/internal/ledger"
	"posthorn/services/internal/retry"
	"posthorn/services/internal/subscription"
)

const (
	// pullAtOnce deliveries of pullsALook subscriptions are pulled in with each
	// look at the subscriptions.
	pullAtOnce = 1000
	pullsALook = 10
)

// schedule is the one that a subscription's deliveries go by.
func (s *Service) schedule(sub *subscription.Subscription) retry.Schedule {
	if sub.Schedule != nil {
		return sub.Schedule
	}
	return s.cfg.Schedule
}

// pullIn has retries that wait made by the schedule as it is by now, where that
// is sooner. A process that starts does so for all subscriptions: the default
// schedule may be another, and whoever saw a schedule change may have crashed
// before it had got here. Several processes that do it do it once.
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
		if !known { // paused or deleted: it comes again when it is resumed
			delete(r.late, id)
			continue
		}
		moved, err := ledger.PullIn(ctx, r.service.db, id, r.service.schedule(&sub).Latest(), pullAtOnce)
		if err != nil {
			return err
		}
		if moved > 0 {
			r.service.logger.Info("retries are pulled in by a shorter schedule", "subscription", id, "count", moved)
		}
		if moved < pullAtOnce {
			delete(r.late, id)
		}
	}
	return nil
}
