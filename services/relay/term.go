package relay

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"posthorn/events"
	"posthorn/services/internal/broker"
	"posthorn/services/internal/envelope"
	"posthorn/services/internal/failpoint"
	"posthorn/services/internal/postgres"
	"posthorn/services/internal/subscription"
)

// stretch is how long changes of subscriptions may take before what is done is
// recorded. Longer, and the lead would be lost with all of it.
const stretch = 5 * time.Second

const (
	// declareAtOnce is how many operations the topology's connection takes at once.
	declareAtOnce = 8
	// changesAtOnce is how many changes of subscriptions are made before the
	// time that they took is looked at.
	changesAtOnce = 64
)

const (
	// awaitFor is how long a look for new records lasts, and so a stop may be
	// held up by it.
	awaitFor = 250 * time.Millisecond
	// idlePoll is how often is looked where nothing came for that long, and
	// quietPoll where nothing came for quietAfter looks, which is ten seconds.
	idlePoll   = 20 * time.Millisecond
	quietPoll  = 50 * time.Millisecond
	quietAfter = 40
	// owedAtOnce ends a window where its events go to so many subscriptions
	// that publishing and recording all of it could take longer than the lease.
	owedAtOnce = 10_000
)

// term is a stretch of leading during which the topology is known to follow
// the routes. It ends with the first failure.
type term struct {
	*Relay
	lead *postgres.Lead

	position  int64
	forwarded bool // at least one window got through
	// suspectThrough: what is published up to this position may have been
	// published before, by a predecessor or by an attempt that failed.
	suspectThrough int64

	// mu makes a change of a route and of its queue and bindings one step, so
	// that the reconciler cannot put back what was just taken away.
	mu     sync.Mutex
	routes *routes
}

func newTerm(r *Relay, lead *postgres.Lead) *term { return &term{Relay: r, lead: lead} }

// serve brings the topology to what the log says up to the relay's position
// and forwards from there. It returns when ctx ends or something fails.
func (t *term) serve(ctx context.Context) error {
	if err := t.begin(ctx); err != nil {
		return err
	}
	t.trouble.Store(nil)
	t.Logger.Info("relay is forwarding", "position", t.position, "subscriptions", t.routes.len())

	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return t.forward(ctx) })
	g.Go(func() error { return t.sweep(ctx) })
	g.Go(func() error { return t.reconcile(ctx) })
	g.Go(func() error { return t.replay(ctx) })
	return g.Wait()
}

func (t *term) begin(ctx context.Context) error {
	conn := t.lead.Conn()
	position, err := postgres.RelayPosition(ctx, conn)
	if err != nil {
		return err
	}
	known, err := postgres.Routes(ctx, conn)
	if err != nil {
		return err
	}
	horizon, err := postgres.Horizon(ctx, conn)
	if err != nil {
		return err
	}
	ahead, err := postgres.ControlRecords(ctx, conn, position, horizon)
	if err != nil {
		return err
	}
	t.position = position
	// A predecessor may have published one window before it could move the
	// position: those events must not be taken for new ones.
	t.suspectThrough = min(horizon, position+int64(t.cfg.Positions))
	t.routes = newRoutes(known)

	if err := t.declareAll(ctx, known); err != nil {
		return err
	}
	return t.unbindAhead(ctx, ahead)
}

// declareAll declares the shared topology and that of every route. A queue
// that is somebody else's costs its own subscription and nobody else's.
func (t *term) declareAll(ctx context.Context, known []postgres.Route) error {
	if err := t.Topology.DeclareShared(ctx, t.routes.accounts()); err != nil {
		return fmt.Errorf("declare exchanges and retry queues: %w", err)
	}
	// Thousands of queues take longer than the lease, so it is renewed between.
	const chunk = 500
	for done := 0; done < len(known); {
		next := min(done+chunk, len(known))
		g, declaring := errgroup.WithContext(ctx)
		g.SetLimit(declareAtOnce)
		for some := range slices.Chunk(known[done:next], chunk/declareAtOnce) {
			g.Go(func() error { return t.declare(declaring, some...) })
		}
		if err := g.Wait(); err != nil {
			return err
		}
		if done = next; done < len(known) {
			t.Logger.Info("relay is declaring queues", "done", done, "of", len(known))
		}
		if err := t.lead.Check(ctx); err != nil {
			return err
		}
	}
	return nil
}

// declare declares the queues and bindings of routes, most of which are likely
// to be there.
func (t *term) declare(ctx context.Context, routes ...postgres.Route) error {
	subs := make([]broker.Declaration, len(routes))
	for i, r := range routes {
		subs[i] = broker.Declaration{Subscription: string(r.ID), Account: r.Account, Patterns: bound(r)}
	}
	for i, err := range t.Topology.DeclareSubscriptions(ctx, subs) {
		if err := t.declared(routes[i].ID, err); err != nil {
			return err
		}
	}
	return nil
}

// declared passes on the error of a declaration, but for a queue that is
// somebody else's.
func (t *term) declared(id subscription.ID, err error) error {
	if errors.Is(err, broker.ErrForeign) {
		t.metrics.foreign.Inc()
		t.Logger.Error("queue exists with other arguments and is left alone: delete it in RabbitMQ and it is declared anew",
			"subscription", id, "error", err)
		return nil
	}
	if err != nil {
		return fmt.Errorf("declare queues of %s: %w", id, err)
	}
	return nil
}

// unbindAhead takes back bindings that a predecessor made for records above
// our position: events before those records are about to be published again
// and must not reach a subscription that was created after them.
func (t *term) unbindAhead(ctx context.Context, ahead []postgres.Record) error {
	for _, record := range ahead {
		if record.Kind != postgres.KindSubscription {
			continue
		}
		change, err := subscription.ParseRecord(record.Data)
		if err != nil {
			continue // forwarding will say so
		}
		route, _ := t.routes.get(change.ID)
		extra := without(patterns(change.EventTypes), bound(route))
		if err := t.Topology.Unbind(ctx, string(change.ID), change.Account, extra); err != nil {
			return fmt.Errorf("take back bindings of %s: %w", change.ID, err)
		}
	}
	return nil
}

// forward reads, publishes and records until ctx ends or something fails.
func (t *term) forward(ctx context.Context) error {
	step, empty := t.cfg.Poll, 0
	for {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		// Not interrupted: that would cost the session, and the lead with it.
		horizon, err := postgres.AwaitHorizon(context.WithoutCancel(ctx), t.lead.Conn(), t.position, step, awaitFor)
		if err != nil {
			return err
		}
		if horizon == t.position {
			t.metrics.lag.Set(0)
			step = max(t.cfg.Poll, idlePoll)
			if empty++; empty > quietAfter {
				step = max(step, quietPoll)
			}
			continue
		}
		step, empty = t.cfg.Poll, 0
		t.metrics.lag.Set(float64(horizon - t.position))
		err = t.window(ctx, horizon)
		t.metrics.lag.Set(float64(horizon - t.position))
		if err != nil {
			return err
		}
	}
}

// window forwards one window of the log. Whatever happens in between, the
// position moves only over what was confirmed.
func (t *term) window(ctx context.Context, horizon int64) error {
	w, err := postgres.ReadWindow(ctx, t.lead.Conn(), t.position, horizon, t.cfg.Positions, t.cfg.Bytes)
	if err != nil {
		return err
	}
	// A batch that has begun is finished also when we are told to stop, so
	// that a deploy sends nothing twice.
	ctx = context.WithoutCancel(ctx)
	b := batch{term: t, progress: postgres.Progress{From: t.position, Through: w.Through}}
	failed := b.publish(ctx, w.Records)
	if failed != nil {
		t.suspectThrough = max(t.suspectThrough, w.Through)
	}
	if b.progress.Through == t.position {
		return failed
	}
	// Crash window: all of this is published, nothing of it is recorded. The
	// next term publishes it again, marked as suspect, and the deliveries
	// look into the ledger before they make an attempt for such a message.
	failpoint.Hit("relay.after_publish")
	if err := postgres.Advance(ctx, t.lead.Conn(), b.progress); err != nil {
		return errors.Join(failed, err)
	}
	failpoint.Hit("relay.after_advance")
	t.position = b.progress.Through
	t.forwarded = true
	t.metrics.position.Set(float64(t.position))
	return failed
}

// batch is what becomes of one window.
type batch struct {
	*term
	progress postgres.Progress
	// waiting to be published, in position order, with the position of each.
	waiting   []broker.Publishing
	positions []int64
}

// publish publishes the records and applies changes of subscriptions between
// them. Where it fails, progress is cut back to what is done.
func (b *batch) publish(ctx context.Context, records []postgres.Record) error {
	begun, changed := time.Now(), false
	for i := 0; i < len(records); i++ {
		r := &records[i]
		if changed && time.Since(begun) > stretch || len(b.progress.Owed) >= owedAtOnce {
			b.cut(r.Position)
			break
		}
		switch r.Kind {
		case postgres.KindEvent:
			b.event(r)
		case postgres.KindTest:
			b.test(r)
		case postgres.KindSubscription:
			// Everything before the record has to be in the queues before the
			// bindings change, and everything after it must not be.
			if err := b.flush(ctx); err != nil {
				return err
			}
			together := b.together(records[i:])
			if err := b.apply(ctx, together); err != nil {
				return err
			}
			changed = true
			i += len(together) - 1
		default:
			b.Logger.Error("record of an unknown kind is passed over", "position", r.Position, "kind", r.Kind)
		}
	}
	return b.flush(ctx)
}

func (b *batch) event(r *postgres.Record) {
	matches := b.routes.match(r.Account, r.Type)
	for _, id := range matches {
		b.progress.Owed = append(b.progress.Owed, postgres.Owed{
			Position: r.Position, Subscription: id, EventID: r.ID, Cause: string(envelope.Live),
		})
	}
	// Published also where nobody subscribes: others may listen on the
	// exchange. Mandatory only where somebody does.
	b.wait(r, broker.Publishing{
		Exchange: b.Names.Events(r.Account), Key: r.Type, Mandatory: len(matches) > 0, Queues: len(matches),
	}, envelope.Live)
}

// test sends a record to the one subscription that it names.
func (b *batch) test(r *postgres.Record) {
	id := subscription.ID(r.Metadata[subscription.TestTarget])
	if _, ok := b.routes.get(id); !ok {
		b.Logger.Warn("test event for a subscription that is gone", "position", r.Position, "subscription", id)
		return
	}
	b.progress.Owed = append(b.progress.Owed, postgres.Owed{
		Position: r.Position, Subscription: id, EventID: r.ID, Cause: string(envelope.Test),
	})
	b.wait(r, broker.Publishing{Exchange: b.Names.Deliver(), Key: string(id), Mandatory: true}, envelope.Test)
}

func (b *batch) wait(r *postgres.Record, p broker.Publishing, cause envelope.Cause) {
	b.waiting = append(b.waiting, b.message(p, r, envelope.Envelope{
		Position: r.Position, Cause: cause, PublishedAt: time.Now(), Suspect: r.Position <= b.suspectThrough,
	}))
	b.positions = append(b.positions, r.Position)
}

// message completes a publishing with an event and its signed envelope.
func (r *Relay) message(p broker.Publishing, record *postgres.Record, e envelope.Envelope) broker.Publishing {
	e = e.WithTrace(record.Metadata)
	p.ID = record.ID
	p.ContentType = "application/json"
	p.Body = record.AppendBody(make([]byte, 0, len(record.Data)+256))
	content := envelope.Content{ID: p.ID, ContentType: p.ContentType, Body: p.Body}
	if p.Exchange == r.Names.Deliver() {
		content.Subscription = p.Key
	} else if e.Type = record.Type; record.Account != events.DefaultAccount {
		e.Account = record.Account
	}
	p.Headers = r.Messages.Headers(e, content)
	return p
}

// flush publishes what is waiting and has it confirmed.
func (b *batch) flush(ctx context.Context) error {
	if len(b.waiting) == 0 {
		return nil
	}
	var outcomes []broker.Outcome
	var err error
	if lost := b.lead.Hold(ctx, func(ctx context.Context) { outcomes, err = b.Publisher.PublishAll(ctx, b.waiting) }); lost != nil {
		b.cut(b.positions[0])
		return lost
	}
	acked := 0
	for i, outcome := range outcomes {
		switch outcome {
		case broker.Acked:
			acked++
			continue
		case broker.Returned:
			// Its queues are missing. The ledger says that it is owed, the
			// reconciler mends the queues and the sweeper sends it again.
			b.metrics.returned.Inc()
			b.Logger.Warn("event reached no queue", "position", b.positions[i])
			continue
		case broker.Nacked, broker.Unknown:
		}
		b.metrics.published.Add(float64(acked))
		b.cut(b.positions[i])
		return fmt.Errorf("publish event at position %d: %w", b.positions[i], err)
	}
	b.metrics.published.Add(float64(acked))
	// Not reused: after an error the publisher may still read the batch.
	b.waiting, b.positions = nil, nil
	return nil
}

// cut takes the record at a position, and all after it, out of the progress.
func (b *batch) cut(position int64) {
	b.progress.Through = position - 1
	for i, o := range b.progress.Owed {
		if o.Position >= position {
			b.progress.Owed = b.progress.Owed[:i]
			return
		}
	}
}

// change is one control record and what it makes of a route.
type change struct {
	position int64
	old      postgres.Route
	known    bool // old is one
	route    postgres.Route
}

// together are the changes that the records begin with, up to one that is of a
// subscription which is among them already: those of different subscriptions
// touch different queues, so nothing keeps them from being made side by side.
func (b *batch) together(records []postgres.Record) []change {
	var changes []change
	taken := map[subscription.ID]bool{}
	for i := range records {
		r := &records[i]
		if r.Kind != postgres.KindSubscription || len(changes) == changesAtOnce {
			break
		}
		c := change{position: r.Position}
		record, err := subscription.ParseRecord(r.Data)
		if err != nil {
			b.Logger.Error("control record is passed over", "position", r.Position, "error", err)
			changes = append(changes, c)
			continue
		}
		if taken[record.ID] {
			break
		}
		taken[record.ID] = true
		c.old, c.known = b.routes.get(record.ID)
		c.route = postgres.Route{
			ID: record.ID, Account: record.Account, EventTypes: record.EventTypes, Status: record.Status, Since: c.old.Since,
		}
		if !c.known {
			c.route.Since = r.Position
		}
		changes = append(changes, c)
	}
	return changes
}

// apply makes changes of different subscriptions in the topology, side by
// side, and then in the routes. Where one fails, progress is cut back to the
// changes before it; the next term takes back what those after it did.
func (b *batch) apply(ctx context.Context, changes []change) error {
	b.mu.Lock()
	defer b.mu.Unlock()
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
			b.cut(c.position)
			return fmt.Errorf("apply change of %s: %w", c.route.ID, failed[i])
		}
		if c.route.ID == "" {
			continue
		}
		b.routes.set(c.route)
		b.progress.Changed = append(b.progress.Changed, c.route)
		b.Logger.Info("subscription changed", "subscription", c.route.ID, "status", c.route.Status, "position", c.position)
	}
	return nil
}

// shape makes one change in the topology.
func (b *batch) shape(ctx context.Context, c *change) error {
	switch {
	case c.route.ID == "":
		return nil
	case c.route.Status == subscription.Deleted:
		return b.Topology.DeleteSubscription(ctx, string(c.route.ID))
	case c.known:
		return b.rebind(ctx, c.old, c.route)
	}
	if c.route.Account != events.DefaultAccount { // whose is declared when the term begins
		if err := b.Topology.DeclareShared(ctx, []string{c.route.Account}); err != nil {
			return fmt.Errorf("declare exchange of account %s: %w", c.route.Account, err)
		}
	}
	return b.declared(c.route.ID,
		b.Topology.DeclareSubscription(ctx, string(c.route.ID), c.route.Account, bound(c.route)))
}

// rebind binds before it unbinds, so that a pattern which replaces another
// leaves no gap.
func (b *batch) rebind(ctx context.Context, old, route postgres.Route) error {
	if added := without(bound(route), bound(old)); len(added) > 0 {
		if err := b.Topology.Bind(ctx, string(route.ID), route.Account, added); err != nil && !errors.Is(err, broker.ErrNotFound) {
			return fmt.Errorf("bind: %w", err)
		}
	}
	if gone := without(bound(old), bound(route)); len(gone) > 0 {
		if err := b.Topology.Unbind(ctx, string(route.ID), route.Account, gone); err != nil {
			return fmt.Errorf("unbind: %w", err)
		}
	}
	return nil
}
