package relay

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"posthorn/services/internal/broker"
	"posthorn/services/internal/envelope"
	"posthorn/services/internal/eventlog"
	"posthorn/services/internal/failpoint"
	"posthorn/services/internal/ledger"
	"posthorn/services/internal/postgres"
	"posthorn/services/internal/subscription"
)

// errForgotten ends a term: the broker has lost its messages.
var errForgotten = errors.New("the broker has lost its messages")

const (
	// recallTick is how often recall checks whether one of its tasks is due.
	recallTick = 500 * time.Millisecond
	// countEvery is how often queues are compared with the ledger. countShare is the largest share
	// of the time that this may take: a long backlog takes longer to count and is counted less often.
	countEvery = 2 * time.Second
	countShare = 0.02
	// countFrom is how many deliveries must wait before a queue is compared. With fewer, the sweeper
	// finds lost messages when they are overdue.
	countFrom = 500
	// resendAtOnce and resendBytes limit one step of reading and sending again.
	resendAtOnce = 2000
	resendBytes  = 8 << 20
)

// remember checks whether the broker has lost its messages. If so, it records in the database which
// deliveries must be sent again, and then gives the broker a new memory.
func (t *term) remember(ctx context.Context) error {
	remembers, err := t.topology.Remembers(ctx)
	if errors.Is(err, broker.ErrNotFound) {
		// In a cluster, the queue's node is down. Counting finds the messages that other nodes lose.
		t.logger.Warn("queue memory is on a node that is down: lost messages are found by counting", "error", err)
		remembers, err = true, nil
	}
	if err != nil {
		return fmt.Errorf("check the queue memory: %w", err)
	}
	if !remembers {
		if err := setResend(ctx, t.lead.Conn()); err != nil {
			return err
		}
		// Crash window: recorded, but the broker has no new memory yet. The next term finds the same
		// and sends no less.
		failpoint.Hit("relay.after_forgotten")
		if err := t.publisher.Memorize(ctx); err != nil {
			return fmt.Errorf("give the broker a new memory: %w", err)
		}
	}
	t.resendBefore, err = resendBefore(ctx, t.lead.Conn())
	return err
}

// recall sends all unfinished deliveries again if the broker has lost its messages, and then
// watches for the next loss. The queue memory shows the loss of all messages; counting shows the
// loss of a single queue or node. A message that was not lost becomes a copy; the ledger prevents
// requests for a delivery that has ended.
func (t *term) recall(ctx context.Context) error {
	var err error
	if t.resendBefore.Valid {
		err = t.resendAll(ctx, t.resendBefore.Time)
	}
	t.resending.Unlock()
	if err != nil {
		return err
	}
	asked, connected := time.Now(), t.topology.Since()
	counted, took := time.Now(), time.Duration(0)
	return every(ctx, recallTick, func() error {
		if since := t.topology.Since(); since != connected || time.Since(asked) >= t.cfg.AskEvery {
			if err := t.askMemory(ctx); err != nil {
				return err
			}
			asked, connected = time.Now(), since
		}
		if time.Since(counted) < max(countEvery, time.Duration(float64(took)/countShare)) {
			return nil
		}
		begun := time.Now()
		err := t.compare(ctx)
		counted, took = time.Now(), time.Since(begun)
		return err
	})
}

// askMemory returns errForgotten if the broker has lost its messages.
func (t *term) askMemory(ctx context.Context) error {
	remembers, err := t.topology.Remembers(ctx)
	switch {
	case errors.Is(err, broker.ErrNotFound): // its node is down
		return nil
	case err != nil:
		return fmt.Errorf("check the queue memory: %w", err)
	case !remembers:
		return errForgotten
	}
	return nil
}

func (t *term) resendAll(ctx context.Context, before time.Time) error {
	begun := time.Now()
	sent, err := t.resendWhere(ctx, before, func(u *ledger.Unfinished) bool {
		route, ok := t.routes.get(u.Subscription)
		return ok && route.Status.Owed()
	})
	if err != nil {
		return err
	}
	if sent > 0 {
		t.logger.Warn("broker had lost its messages: deliveries were sent again", "count", sent, "duration", time.Since(begun))
	}
	return clearResend(ctx, t.db, before)
}

// resendWhere sends the wanted unfinished deliveries that were entered before a time again. Retries
// keep their time. The next step is read while one is published.
func (t *term) resendWhere(ctx context.Context, before time.Time, wanted func(*ledger.Unfinished) bool) (sent int, err error) {
	steps := make(chan []broker.Publishing)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer close(steps)
		var at ledger.Cursor
		for {
			list, next, err := ledger.ReadUnfinished(ctx, t.db, before, at, resendAtOnce)
			if err != nil || len(list) == 0 {
				return err
			}
			at = next
			list = slices.DeleteFunc(list, func(u ledger.Unfinished) bool { return !wanted(&u) })
			slices.SortStableFunc(list, func(a, b ledger.Unfinished) int { return cmp.Compare(a.Position, b.Position) })
			if err := t.readAgain(ctx, list, steps); err != nil {
				return err
			}
		}
	})
	g.Go(func() error {
		logged := time.Now()
		for messages := range steps {
			outcomes, err := t.publisher.PublishAll(ctx, messages)
			// Messages that their queue refuses, or that have no queue, are left to the sweeper.
			if slices.Contains(outcomes, broker.Unknown) {
				return fmt.Errorf("send unfinished deliveries again: %w", err)
			}
			sent += len(messages)
			t.metrics.resent.Add(float64(len(messages)))
			if time.Since(logged) > 5*time.Second {
				t.logger.Info("deliveries are being sent again", "count", sent)
				logged = time.Now()
			}
		}
		return nil
	})
	err = g.Wait()
	return sent, err
}

// readAgain builds the messages of unfinished deliveries, which are in position order.
func (t *term) readAgain(ctx context.Context, list []ledger.Unfinished, steps chan<- []broker.Publishing) error {
	for len(list) > 0 {
		positions := make([]int64, len(list))
		for i := range list {
			positions[i] = list[i].Position
		}
		records, through, err := eventlog.RecordsAt(ctx, t.db, slices.Compact(positions), resendBytes)
		if err != nil {
			return err
		}
		n := len(list)
		if i := slices.IndexFunc(list, func(u ledger.Unfinished) bool { return u.Position > through }); i >= 0 {
			n = i
		}
		messages := make([]broker.Publishing, 0, n)
		for i := range list[:n] {
			u := &list[i]
			record, ok := records[u.Position]
			if !ok || record.Check() != nil {
				continue // the sweeper sets it aside when it is overdue
			}
			messages = append(messages, t.again(u, &record))
		}
		list = list[n:]
		select {
		case steps <- messages:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// again is the message of an unfinished delivery: to its queue, or to a retry queue if it waits for
// a retry.
func (t *term) again(u *ledger.Unfinished, record *eventlog.Record) broker.Publishing {
	p := broker.Publishing{Exchange: t.names.Deliver(), Key: string(u.Subscription), Mandatory: true}
	e := envelope.Envelope{
		Position: u.Position, Run: u.Run, Attempts: u.Attempts, Cause: u.Cause, PublishedAt: time.Now(), Suspect: true,
	}
	if u.Wait > 0 {
		var rung time.Duration
		rung, e.Wait = t.relay.broker.NextHop(u.Wait)
		p.Exchange = t.names.Retry(rung)
	}
	return t.relay.message(p, record, e)
}

// compare finds queues with fewer messages than waiting deliveries, even if each consumer held its
// maximum, and sends the missing messages again. It finds a queue that was purged or deleted, or
// lost by its node.
func (t *term) compare(ctx context.Context) error {
	t.resending.Lock()
	defer t.resending.Unlock()
	now, err := postgres.Now(ctx, t.db)
	if err != nil {
		return err
	}
	waiting, err := ledger.CountWaiting(ctx, t.db, now, countFrom)
	if err != nil {
		return err
	}
	// A delivery that was entered before now and still waits at the second count had its message in
	// the queue, or at a consumer, when the queue was inspected in between.
	depths := map[subscription.ID]int{}
	for _, b := range waiting {
		route, ok := t.routes.get(b.Subscription)
		if !ok || !route.Status.Owed() {
			continue
		}
		ready, consumers, exists, err := t.topology.Depth(ctx, t.names.DeliverQueue(string(b.Subscription)))
		if err != nil {
			return fmt.Errorf("inspect the queue of %s: %w", b.Subscription, err)
		}
		if !exists {
			if err := t.restore(ctx, b.Subscription); err != nil {
				return err
			}
		}
		if held := consumers * broker.MaxPrefetch; b.Deliveries > ready+held {
			depths[b.Subscription] = ready + held
		}
	}
	if len(depths) == 0 {
		return nil
	}
	if waiting, err = ledger.CountWaiting(ctx, t.db, now, countFrom); err != nil {
		return err
	}
	missing, skip := map[subscription.ID]int{}, map[subscription.ID]int{}
	for _, b := range waiting {
		if most, ok := depths[b.Subscription]; ok && b.Deliveries > most {
			t.logger.Warn("queue has lost messages: they are sent again", "subscription", b.Subscription, "count", b.Deliveries-most)
			missing[b.Subscription] = b.Deliveries - most
			// Consumers may hold the oldest. Those of them that are lost are overdue soon.
			skip[b.Subscription] = most
		}
	}
	if len(missing) == 0 {
		return nil
	}
	_, err = t.resendWhere(ctx, now, func(u *ledger.Unfinished) bool {
		if u.Attempts > 0 || missing[u.Subscription] == 0 {
			return false
		}
		if skip[u.Subscription] > 0 {
			skip[u.Subscription]--
			return false
		}
		missing[u.Subscription]--
		return true
	})
	return err
}
