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

// errForgotten ends a term: the broker has lost the messages that it had.
var errForgotten = errors.New("the broker has lost its messages")

const (
	// recallTick is how often is looked whether something is due.
	recallTick = 500 * time.Millisecond
	// countEvery is how often queues are compared with the ledger, and countShare the share of the
	// time that this may take: counting a long backlog takes longer and is done less often.
	countEvery = 2 * time.Second
	countShare = 0.02
	// countFrom is how many deliveries have to wait for a queue to be compared: what is less, the
	// sweeper finds when it is overdue.
	countFrom = 500
	// resendAtOnce and resendBytes limit what is read and sent again in one step.
	resendAtOnce = 2000
	resendBytes  = 8 << 20
)

// remember notes in the database what is to be sent again where the broker has lost its messages,
// and then gives it a new memory.
func (t *term) remember(ctx context.Context) error {
	remembers, err := t.topology.Remembers(ctx)
	if errors.Is(err, broker.ErrNotFound) {
		// In a cluster, the queue's node is down. What other nodes lose is found by counting.
		t.logger.Warn("queue memory is on a node that is down: lost messages are found by counting", "error", err)
		remembers, err = true, nil
	}
	if err != nil {
		return fmt.Errorf("ask the broker what it remembers: %w", err)
	}
	if !remembers {
		if err := setResend(ctx, t.lead.Conn()); err != nil {
			return err
		}
		// Crash window: noted, and the broker has no new memory yet. The next term finds the same
		// and sends no less.
		failpoint.Hit("relay.after_forgotten")
		if err := t.publisher.Memorize(ctx); err != nil {
			return fmt.Errorf("give the broker a new memory: %w", err)
		}
	}
	t.resendBefore, err = resendBefore(ctx, t.lead.Conn())
	return err
}

// recall sends again all that has not ended, after the broker has lost its messages, and then
// watches for the next loss: of all messages by the queue memory, of those of a single queue or node
// by counting. A message that was not lost becomes a copy, and the ledger keeps it from being sent
// for a delivery that has ended.
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
		return fmt.Errorf("ask the broker what it remembers: %w", err)
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

// resendWhere sends again the unfinished deliveries that were entered before a time, as far as they
// are wanted. Retries keep their time. While a step is published the next one is read.
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
			// What its queue refuses, or has no queue, is left to the sweeper.
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

// readAgain makes messages of unfinished deliveries, which are in position order.
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

// again is the message of an unfinished delivery: into its queue, or where it waits for a retry into
// a retry queue.
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

// compare finds queues that hold fewer messages than deliveries wait, even if each of its consumers
// held as many as it may, and sends the missing ones again. It finds a queue that was purged or
// deleted, or whose node has lost it.
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
	// What was entered before now and still waits when it is counted the second time had its message
	// in the queue, or with a consumer, when the queue was looked at between.
	depths := map[subscription.ID]int{}
	for _, b := range waiting {
		route, ok := t.routes.get(b.Subscription)
		if !ok || !route.Status.Owed() {
			continue
		}
		ready, consumers, exists, err := t.topology.Depth(ctx, t.names.DeliverQueue(string(b.Subscription)))
		if err != nil {
			return fmt.Errorf("look into the queue of %s: %w", b.Subscription, err)
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
			// The oldest are those that consumers may hold. What is lost of them is overdue soon.
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
