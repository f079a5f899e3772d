package relay

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"posthorn/services/internal/broker"
	"posthorn/services/internal/envelope"
	"posthorn/services/internal/eventlog"
	"posthorn/services/internal/failpoint"
	"posthorn/services/internal/ledger"
	"posthorn/services/internal/payload"
	"posthorn/services/internal/subscription"
)

// maxChangeTime is how long subscription changes may take before progress is
// recorded. Beyond that the lead could be lost, and all progress with it.
const maxChangeTime = 5 * time.Second

// owedAtOnce ends a window when its events go to so many subscriptions that
// publishing and recording all of them could take longer than the lease.
const owedAtOnce = 10_000

// window forwards one window of the log. The position moves only over confirmed
// events, whatever fails in between.
func (t *term) window(ctx context.Context, horizon int64) error {
	w, err := eventlog.ReadWindow(ctx, t.lead.Prepared(), t.position, horizon, t.relay.stuck.width(t.cfg.Positions), t.cfg.Bytes)
	if err != nil {
		return err
	}
	// A batch that has begun is finished even after ctx ends, so that a deploy
	// sends nothing twice.
	ctx = context.WithoutCancel(ctx)
	b := batch{term: t, progress: Progress{From: t.position, Through: w.Through}}
	failed := b.publish(ctx, w.Records)
	if failed != nil {
		t.suspectThrough = max(t.suspectThrough, w.Through)
	}
	t.relay.stuck.observe(b.unconfirmed, failed)
	if b.progress.Through == t.position {
		return failed
	}
	// Crash window: the batch is published but not recorded. The next term
	// publishes it again, marked as suspect, and the delivery service checks the
	// ledger before it makes an attempt for such a message.
	failpoint.Hit("relay.after_publish")
	if err := Advance(ctx, t.lead.Conn(), t.lead.Prepared(), b.progress); err != nil {
		return errors.Join(failed, err)
	}
	failpoint.Hit("relay.after_advance")
	for _, r := range b.progress.SetAside {
		t.metrics.setAside.WithLabelValues(string(r.Status)).Inc()
		t.relay.quarantined.Add(1)
		t.logger.Error("record is set aside: see posthorn outbox quarantine", "position", r.Position, "kind", r.Kind,
			"event", r.EventID, "status", r.Status, "reason", r.Reason)
	}
	t.position = b.progress.Through
	t.forwarded = true
	t.metrics.position.Set(float64(t.position))
	return failed
}

// batch is the processing of one window.
type batch struct {
	term     *term
	progress Progress
	// waiting are the messages to publish, in position order; positions has the
	// position of each.
	waiting   []broker.Publishing
	positions []int64
	// unconfirmed is the position of the first event that was published but not
	// confirmed, 0 if all were.
	unconfirmed int64
}

// publish publishes the records and applies the subscription changes among
// them. If it fails, progress is truncated to the completed records.
func (b *batch) publish(ctx context.Context, records []eventlog.Record) error {
	begun, changed := time.Now(), false
	for i := 0; i < len(records); i++ {
		r := &records[i]
		if changed && time.Since(begun) > maxChangeTime || len(b.progress.Owed) >= owedAtOnce {
			b.truncate(r.Position)
			break
		}
		if r.Kind == eventlog.KindSubscription {
			// All events before the record must be in the queues before the
			// bindings change, and none after it may be.
			if err := b.flush(ctx); err != nil {
				return err
			}
			changes := b.leadingChanges(records[i:])
			if err := b.apply(ctx, changes); err != nil {
				return err
			}
			changed = true
			i += len(changes) - 1
			continue
		}
		if err := r.Check(); err != nil {
			b.setAside(r, eventlog.Held, err)
			continue
		}
		to, cause := b.recipients(r)
		b.addOwed(r, to, cause)
		why := b.term.relay.stuck.reason(r.Position)
		if why == nil {
			b.enqueue(r, to, cause)
			continue
		}
		if err := b.flush(ctx); err != nil {
			return err
		}
		if err := b.reroute(ctx, r, to, cause, why); err != nil {
			return err
		}
	}
	return b.flush(ctx)
}

// setAside adds a record to be quarantined to the progress.
func (b *batch) setAside(r *eventlog.Record, status eventlog.QuarantineStatus, why error) {
	b.progress.SetAside = append(b.progress.SetAside, eventlog.NewQuarantined(r, status, why))
}

// recipients returns the subscriptions that are owed a record, and the cause: an
// event goes to those that match, a test to the one that it names.
func (b *batch) recipients(r *eventlog.Record) (recipients, ledger.Cause) {
	if r.Kind != eventlog.KindTest {
		return b.term.routes.match(r.Account, r.Type), ledger.CauseLive
	}
	id := subscription.ID(r.Metadata[subscription.TestTarget])
	if _, ok := b.term.routes.get(id); !ok {
		b.term.logger.Warn("test event for a subscription that is gone", "position", r.Position, "subscription", id)
		return recipients{}, ledger.CauseTest
	}
	return recipients{addressed: []subscription.ID{id}}, ledger.CauseTest
}

// addOwed adds the deliveries of a record to the progress.
func (b *batch) addOwed(r *eventlog.Record, to recipients, cause ledger.Cause) {
	for id := range to.all() {
		b.progress.Owed = append(b.progress.Owed, ledger.Owed{
			Position: r.Position, Subscription: id, EventID: r.ID, Cause: cause,
		})
	}
}

// enqueue adds a record to the next flush.
func (b *batch) enqueue(r *eventlog.Record, to recipients, cause ledger.Cause) {
	// Published even without a matching subscription: others may listen on the
	// exchange. Mandatory only with one. An account that never had a subscription
	// has no exchange.
	if r.Kind == eventlog.KindEvent && b.term.routes.hasExchange(r.Account) {
		b.addPublishing(r, broker.Publishing{
			Exchange: b.term.names.Events(r.Account), Key: r.Type, Mandatory: len(to.bound) > 0, Queues: len(to.bound),
		}, cause)
	}
	for _, id := range to.addressed {
		b.addPublishing(r, b.addressed(id), cause)
	}
}

// addressed is a publishing to the queue of one subscription.
func (b *batch) addressed(id subscription.ID) broker.Publishing {
	return broker.Publishing{Exchange: b.term.names.Deliver(), Key: string(id), Mandatory: true}
}

func (b *batch) addPublishing(r *eventlog.Record, p broker.Publishing, cause ledger.Cause) {
	b.waiting = append(b.waiting, b.term.relay.message(p, r, b.envelope(r, cause)))
	b.positions = append(b.positions, r.Position)
}

func (b *batch) envelope(r *eventlog.Record, cause ledger.Cause) envelope.Envelope {
	return envelope.Envelope{
		Position: r.Position, Cause: cause, PublishedAt: time.Now(), Suspect: r.Position <= b.term.suspectThrough,
	}
}

// message completes a publishing with an event and its signed envelope.
func (r *Relay) message(p broker.Publishing, record *eventlog.Record, e envelope.Envelope) broker.Publishing {
	rendered := payload.Render(record)
	e.TraceParent, e.TraceState = rendered.Trace.Parent, rendered.Trace.State
	p.ID, p.ContentType, p.Body = rendered.ID, rendered.ContentType, rendered.Body
	content := envelope.Content{ID: p.ID, ContentType: p.ContentType, Body: p.Body}
	if p.Exchange == r.names.Deliver() {
		content.Subscription = p.Key
	} else if e.Type = record.Type; broker.OwnExchange(record.Account) {
		e.Account = record.Account
	}
	p.Headers = r.messages.Headers(e, content)
	return p
}

// flush publishes the waiting messages and awaits their confirms.
func (b *batch) flush(ctx context.Context) error {
	if len(b.waiting) == 0 {
		return nil
	}
	var outcomes []broker.Outcome
	var err error
	if lost := b.term.lead.Hold(ctx, func(ctx context.Context) { outcomes, err = b.term.publisher.PublishAll(ctx, b.waiting) }); lost != nil {
		b.truncate(b.positions[0])
		return lost
	}
	acked := 0
	for i, outcome := range outcomes {
		switch outcome {
		case broker.Acked:
			acked++
			continue
		case broker.Returned:
			// Its queues are missing. The ledger has its deliveries, the
			// reconciler restores the queues and the sweeper sends it again.
			b.term.metrics.returned.Inc()
			b.term.logger.Warn("event reached no queue", "position", b.positions[i])
			continue
		case broker.Nacked:
			if b.waiting[i].Exchange == b.term.names.Deliver() {
				continue // the queue refuses it: the sweeper sends it again
			}
		case broker.Unknown:
		}
		b.term.metrics.published.Add(float64(acked))
		b.truncate(b.positions[i])
		b.unconfirmed = b.positions[i]
		return fmt.Errorf("publish event at position %d: %w", b.positions[i], err)
	}
	b.term.metrics.published.Add(float64(acked))
	// Not reused: after an error the publisher may still read the batch.
	b.waiting, b.positions = nil, nil
	return nil
}

// truncate removes the record at a position, and all after it, from the progress.
func (b *batch) truncate(position int64) {
	b.progress.Through = position - 1
	b.progress.Owed = slices.DeleteFunc(b.progress.Owed, func(o ledger.Owed) bool { return o.Position >= position })
	b.progress.SetAside = slices.DeleteFunc(b.progress.SetAside, func(q eventlog.Quarantined) bool { return q.Position >= position })
}
