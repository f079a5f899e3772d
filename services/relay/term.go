package relay

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"posthorn/services/internal/broker"
	"posthorn/services/internal/eventlog"
	"posthorn/services/internal/postgres"
	"posthorn/services/internal/subscription"
)

// declareAtOnce is how many operations run concurrently on the topology's connection.
const declareAtOnce = 8

const (
	// awaitFor is how long a query waits in the database for new records, and so
	// how long it may delay a stop.
	awaitFor = 250 * time.Millisecond
	// settleFor is how long the relay waits for a record that it was woken for.
	// Transactions that began before it have to end first.
	settleFor = 20 * time.Millisecond
	// polledFor is how long the relay polls at the short interval after a record
	// that it was not woken for.
	polledFor = time.Second
	// idlePoll is how often the relay looks otherwise, and restingPoll how often
	// after restingAfter without a record.
	idlePoll     = 20 * time.Millisecond
	restingPoll  = 100 * time.Millisecond
	restingAfter = 10 * time.Second
)

// term is a period of leadership during which the topology is known to follow
// the routes. It ends with the first failure.
type term struct {
	relay     *Relay
	db        *sql.DB
	publisher *broker.Publisher
	topology  *broker.Topology
	names     broker.Names
	logger    *slog.Logger
	metrics   *metrics
	cfg       *Config
	lead      *postgres.Lead

	position  int64
	forwarded bool // at least one window got through
	// suspectThrough: events up to this position may have been published before,
	// by a predecessor or by a publish that failed.
	suspectThrough int64

	// resending is held while queues are compared with the ledger and missing
	// messages are sent again: two at once would send them twice.
	resending sync.Mutex
	// resendBefore is set if the broker has lost its messages: deliveries entered before it must be
	// sent again.
	resendBefore sql.NullTime

	// mu makes a change of a route and of its queue and bindings one step, so
	// that the reconciler cannot restore a queue or binding that was just removed.
	mu     sync.Mutex
	routes *routes
}

func newTerm(r *Relay, lead *postgres.Lead) *term {
	return &term{
		relay: r, db: r.db, publisher: r.publisher, topology: r.topology, names: r.names, logger: r.logger,
		metrics: &r.metrics, cfg: &r.cfg, lead: lead,
	}
}

// serve brings the topology to the state of the log at the relay's position and
// forwards from there. It returns when ctx ends or something fails.
func (t *term) serve(ctx context.Context) error {
	if err := t.begin(ctx); err != nil {
		return err
	}
	t.relay.trouble.Store(nil)
	t.logger.Info("relay is forwarding", "position", t.position, "subscriptions", t.routes.len())

	t.resending.Lock() // until all lost messages are sent again
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return t.forward(ctx) })
	g.Go(func() error { return t.sweep(ctx) })
	g.Go(func() error { return t.recall(ctx) })
	g.Go(func() error { return t.reconcile(ctx) })
	g.Go(func() error { return t.replay(ctx) })
	return g.Wait()
}

func (t *term) begin(ctx context.Context) error {
	conn := t.lead.Conn()
	position, err := eventlog.RelayPosition(ctx, conn)
	if err != nil {
		return err
	}
	known, err := Routes(ctx, conn)
	if err != nil {
		return err
	}
	horizon, err := eventlog.Horizon(ctx, conn)
	if err != nil {
		return err
	}
	ahead, err := eventlog.ControlRecords(ctx, conn, position, horizon)
	if err != nil {
		return err
	}
	t.position = position
	// A predecessor may have published one window without moving the position:
	// those events must not be taken for new ones.
	t.suspectThrough = min(horizon, position+int64(t.cfg.Positions))
	t.routes = newRoutes(known)

	if err := t.declareAll(ctx, known); err != nil {
		return err
	}
	for _, route := range known {
		if err := t.topology.Unbind(ctx, string(route.ID), route.Account, stale(route)); err != nil {
			return fmt.Errorf("remove bindings of %s: %w", route.ID, err)
		}
	}
	if err := t.unbindAhead(ctx, ahead); err != nil {
		return err
	}
	return t.remember(ctx)
}

// declareAll declares the shared topology and that of every route. A foreign
// queue affects only its subscription.
func (t *term) declareAll(ctx context.Context, known []Route) error {
	if err := t.topology.DeclareShared(ctx, t.routes.accountNames()); err != nil {
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
			t.logger.Info("relay is declaring queues", "done", done, "of", len(known))
		}
		if err := t.lead.Check(ctx); err != nil {
			return err
		}
	}
	return nil
}

// declare declares the queues and bindings of routes, most of which are likely
// to exist.
func (t *term) declare(ctx context.Context, routes ...Route) error {
	subs := make([]broker.Declaration, len(routes))
	for i, r := range routes {
		subs[i] = broker.Declaration{Subscription: string(r.ID), Account: r.Account, Patterns: t.routes.bound(r)}
	}
	for i, err := range t.topology.DeclareSubscriptions(ctx, subs) {
		if err := t.declared(routes[i].ID, err); err != nil {
			return err
		}
	}
	return nil
}

// declared returns the error of a declaration, except for one that affects only
// this subscription, such as a foreign queue.
func (t *term) declared(id subscription.ID, err error) error {
	if errors.Is(err, broker.ErrForeign) {
		t.metrics.foreign.Inc()
		t.logger.Error("queue exists with other arguments: delete it in RabbitMQ, and the relay declares it again",
			"subscription", id, "error", err)
		return nil
	}
	if errors.Is(err, broker.ErrNotFound) {
		// In a cluster: its node is down. The next round of the reconciler declares it again.
		t.logger.Warn("queue is on a node that is down: the subscription waits for it", "subscription", id, "error", err)
		return nil
	}
	if err != nil {
		return fmt.Errorf("declare queues of %s: %w", id, err)
	}
	return nil
}

// unbindAhead removes bindings that a predecessor made for records above our
// position: events before those records are about to be published again and
// must not reach a subscription that was created after them.
func (t *term) unbindAhead(ctx context.Context, ahead []eventlog.Record) error {
	for _, early := range t.routes.boundEarly(ahead) {
		if err := t.topology.Unbind(ctx, string(early.id), early.account, early.patterns); err != nil {
			return fmt.Errorf("remove bindings of %s: %w", early.id, err)
		}
	}
	return nil
}

// forward reads, publishes and records until ctx ends or something fails.
func (t *term) forward(ctx context.Context) error {
	var w watch
	for {
		// Before the horizon is read, so that the window has all that arrived meanwhile.
		if early := t.cfg.Pace - time.Since(w.began); early > 0 && !w.behind {
			pause(ctx, early)
		}
		horizon, err := t.await(ctx, &w)
		if err != nil {
			return err
		}
		w.behind = false
		if horizon == t.position {
			t.metrics.lag.Set(0)
			continue
		}
		w.began = time.Now()
		t.metrics.lag.Set(float64(horizon - t.position))
		err = t.window(ctx, horizon)
		t.metrics.lag.Set(float64(horizon - t.position))
		if err != nil {
			return err
		}
		w.behind = horizon > t.position
	}
}

// watch tracks how records arrive.
type watch struct {
	began  time.Time // when the last window began
	behind bool      // there was more than the last window could take
	// unannounced counts consecutive records that arrived without a wake-up. polled is
	// when that last happened several times in a row.
	unannounced int
	polled      time.Time
}

// await waits until the log is settled beyond the position, or for a while, and
// returns the horizon.
//
// Waiting for a wake-up costs nothing. As long as records come from producers
// that do not wake the relay, it polls Postgres at the short interval.
func (t *term) await(ctx context.Context, w *watch) (int64, error) {
	if ctx.Err() != nil {
		return 0, ctx.Err()
	}
	patience, woken := awaitFor, false
	switch {
	case w.behind:
		patience, woken = 0, true
	case time.Since(w.polled) < polledFor:
		select {
		case <-t.relay.woken:
			woken = true
		case <-t.relay.appended:
			woken = true
		default:
		}
	default:
		poll := idlePoll
		if time.Since(w.began) > restingAfter {
			poll = restingPoll
		}
		timer := time.NewTimer(max(poll, t.cfg.Poll))
		defer timer.Stop()
		select {
		case <-t.relay.woken:
			patience, woken = settleFor, true
		case <-t.relay.appended:
			patience, woken = settleFor, true
		case <-timer.C:
			patience = 0
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
	// Not cancelled: that would cost the session, and the lead with it.
	horizon, err := eventlog.AwaitHorizon(context.WithoutCancel(ctx), t.lead.Prepared(), t.position, t.cfg.Poll, patience)
	if err == nil {
		w.observe(woken, horizon > t.position)
	}
	return horizon, err
}

// observe records whether the relay was woken, and whether there was a record.
func (w *watch) observe(woken, came bool) {
	switch {
	case woken:
		w.unannounced = 0
	case came:
		// A single one may be ahead of its wake-up.
		if w.unannounced++; w.unannounced > 1 {
			w.polled = time.Now()
		}
	}
}
