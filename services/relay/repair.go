package relay

import (
	"context"
	"fmt"
	"time"

	"posthorn/services/internal/broker"
	"posthorn/services/internal/eventlog"
	"posthorn/services/internal/ledger"
	"posthorn/services/internal/subscription"
)

const (
	// overdueGrace is how late a delivery must be to be swept.
	overdueGrace = 5 * time.Second
	// sweepAgain is how long the sweeper waits before it sends a message once more.
	sweepAgain = time.Minute
	// unsendableAgain is how long a delivery waits if its record cannot be sent.
	unsendableAgain = time.Hour
	// sweepAtOnce limits how many messages are sent again at once.
	sweepAtOnce = 1000
	// restoreAtOnce limits how many subscriptions are declared again at once,
	// since subscription changes wait meanwhile.
	restoreAtOnce = 250
)

// sweep sends deliveries again if the broker has lost their messages. It turns
// every loss into a delay: a purged or deleted queue, a wiped broker, a crash
// between the ledger and the broker.
func (t *term) sweep(ctx context.Context) error {
	return every(ctx, t.cfg.SweepEvery, func() error {
		waiting, err := eventlog.CountQuarantined(ctx, t.db)
		if err != nil {
			return err
		}
		t.relay.quarantined.Store(waiting)
		t.metrics.quarantined.Set(float64(waiting))
		return t.sweepOverdue(ctx)
	})
}

func (t *term) sweepOverdue(ctx context.Context) error {
	t.resending.Lock()
	defer t.resending.Unlock()
	backlogs, err := ledger.Overdue(ctx, t.db, overdueGrace)
	if err != nil {
		return err
	}
	for _, b := range backlogs {
		if err := t.sweepOne(ctx, b); err != nil {
			return err
		}
	}
	return nil
}

func (t *term) sweepOne(ctx context.Context, b ledger.Backlog) error {
	route, ok := t.routes.get(b.Subscription)
	if !ok || route.Status != subscription.Active {
		return nil // the deliveries wait until it is resumed
	}
	waiting, _, exists, err := t.topology.Depth(ctx, t.names.DeliverQueue(string(b.Subscription)))
	if err != nil {
		return fmt.Errorf("inspect the queue of %s: %w", b.Subscription, err)
	}
	if !exists {
		if err := t.restore(ctx, b.Subscription); err != nil {
			return err
		}
	}
	// Messages that wait in the queue are late, not lost. A queue hands out the
	// oldest first, so the lost ones are among the oldest in the ledger. A wrong
	// guess does no harm: a swept message is checked against the ledger before an
	// attempt is made.
	for lost := b.Deliveries - waiting; lost > 0; {
		due, err := ledger.OverdueDeliveries(ctx, t.db, b.Subscription, overdueGrace, min(lost, sweepAtOnce))
		if err != nil || len(due) == 0 {
			return err
		}
		lost -= len(due)
		if due, err = t.sendable(ctx, b.Subscription, due); err != nil {
			return err
		}
		if err := t.resend(ctx, b.Subscription, due); err != nil {
			return err
		}
	}
	return nil
}

// sendable returns the due deliveries whose records can be sent. A record that was
// damaged since it was forwarded is set aside, and its delivery waits.
func (t *term) sendable(ctx context.Context, id subscription.ID, due []ledger.Due) ([]ledger.Due, error) {
	var aside []eventlog.Quarantined
	var positions []int64
	sendable := due[:0]
	for i := range due {
		if err := due[i].Check(); err != nil {
			aside = append(aside, eventlog.NewQuarantined(&due[i].Record, eventlog.Held, err))
			positions = append(positions, due[i].Position)
			continue
		}
		sendable = append(sendable, due[i])
	}
	if len(aside) == 0 {
		return sendable, nil
	}
	t.logger.Error("overdue deliveries cannot be sent: see posthorn outbox quarantine", "subscription", id,
		"count", len(aside), "position", aside[0].Position, "reason", aside[0].Reason)
	if err := eventlog.SetAside(ctx, t.db, aside...); err != nil {
		return nil, err
	}
	return sendable, ledger.Postpone(ctx, t.db, id, positions, unsendableAgain)
}

func (t *term) resend(ctx context.Context, id subscription.ID, due []ledger.Due) error {
	if len(due) == 0 {
		return nil
	}
	positions := make([]int64, len(due))
	for i := range due {
		positions[i] = due[i].Position
	}
	returned, err := t.publishDue(ctx, due, true)
	switch {
	case err == nil && len(returned) > 0:
		return nil // the queue is gone again: the next round restores it
	case broker.Refused(err):
		// Only this subscription is affected. It is retried later.
		t.logger.Warn("queue refuses overdue deliveries", "subscription", id, "count", len(due), "error", err)
		return ledger.Postpone(ctx, t.db, id, positions, sweepAgain)
	case err != nil:
		return fmt.Errorf("send overdue deliveries of %s again: %w", id, err)
	}
	t.metrics.swept.Add(float64(len(due)))
	t.logger.Info("overdue deliveries were sent again", "subscription", id, "count", len(due))
	// Crash window: sent but not postponed. The next round sends it once more,
	// and the delivery service drops it because the ledger has it done.
	return ledger.Postpone(ctx, t.db, id, positions, sweepAgain)
}

// reconcile cycles through the routes and declares the queues and bindings of
// each again, which repairs missing ones and changes nothing else.
func (t *term) reconcile(ctx context.Context) error {
	const (
		tick = 250 * time.Millisecond
		// share of the time that repair may take: with thousands of subscriptions
		// a round takes longer, and the broker has something else to do.
		share = 0.05
	)
	var (
		round  []subscription.ID
		began  time.Time
		next   int
		credit float64
		rested time.Time // until when nothing is declared
	)
	return every(ctx, tick, func() error {
		if next >= len(round) && time.Since(began) >= t.cfg.ReconcileWithin {
			round, next, began = t.routes.ids(), 0, time.Now()
			if err := t.topology.DeclareShared(ctx, t.routes.accountNames()); err != nil {
				return fmt.Errorf("declare exchanges and retry queues: %w", err)
			}
		}
		credit = min(credit+float64(len(round))*tick.Seconds()/t.cfg.ReconcileWithin.Seconds(), float64(len(round)))
		if time.Now().Before(rested) {
			return nil
		}
		some := min(int(credit), len(round)-next, restoreAtOnce)
		credit -= float64(some)
		next += some
		started := time.Now()
		err := t.restore(ctx, round[next-some:next]...)
		rested = time.Now().Add(time.Duration(float64(time.Since(started)) * (1/share - 1)))
		return err
	})
}

// restore declares the queues and bindings of subscriptions according to their
// current routes.
func (t *term) restore(ctx context.Context, ids ...subscription.ID) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	routes := make([]Route, 0, len(ids))
	for _, id := range ids {
		if route, ok := t.routes.get(id); ok {
			routes = append(routes, route)
		}
	}
	return t.declare(ctx, routes...)
}

// every calls f at each tick until ctx ends or f fails.
func every(ctx context.Context, tick time.Duration, f func() error) error {
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
			if err := f(); err != nil {
				return err
			}
		}
	}
}
