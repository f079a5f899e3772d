// Package relay forwards the outbox to the broker: it reads the log in order,
// publishes every event to the topic exchange, and enters in the ledger which
// subscriptions are owed it.
//
// It promises that every event is published at least once and in position
// order; that a subscription gets exactly the events after its creation,
// because topology follows the same log; and that an event is published twice
// only around a crash or a lost connection, and is marked as suspect then.
// One relay is active, any number stand by; one that hangs is replaced within
// postgres.LeaseTimeout. With the broker or the database away it waits and
// goes on by itself. What the broker loses is sent again from the ledger.
package relay

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"posthorn/services/internal/broker"
	"posthorn/services/internal/envelope"
	"posthorn/services/internal/postgres"
)

// Config of a Relay. The zero value of each field means its default.
type Config struct {
	// Poll is how often a new record is looked for while records come from
	// producers that do not wake the relay. Otherwise it looks every 20 ms, and
	// every 50 ms after ten seconds without a record. Default 2 ms.
	Poll time.Duration
	// Pace is the shortest time between the beginnings of two windows: what comes
	// meanwhile shares the commits of one. Default 3 ms.
	Pace time.Duration
	// Positions and Bytes limit a window, which is read and published at once:
	// Positions what a crash makes suspect, Bytes the memory that it takes. A
	// window has what came during the one before, so under load its size follows
	// from the rate; beyond 1,000, statements and confirms get no cheaper.
	// Defaults 1,000 and 8 MiB.
	Positions, Bytes int
	// Standby is how often a standby tries to take over. Default 500 ms.
	Standby time.Duration
	// SweepEvery is how often overdue deliveries are looked for. Default 5 s.
	SweepEvery time.Duration
	// AskEvery is how often the broker is asked whether it has lost its messages,
	// besides after each lost connection: in a cluster, the node of the queue
	// memory may be another one. Default 10 s.
	AskEvery time.Duration
	// ReconcileWithin is how long it takes to have looked at every queue and
	// binding once. Default 25 s.
	ReconcileWithin time.Duration
}

func (c *Config) fill() {
	c.Poll = cmp.Or(c.Poll, 2*time.Millisecond)
	c.Pace = cmp.Or(c.Pace, 3*time.Millisecond)
	c.Positions = cmp.Or(c.Positions, 1000)
	c.Bytes = cmp.Or(c.Bytes, 8<<20)
	c.Standby = cmp.Or(c.Standby, 500*time.Millisecond)
	c.SweepEvery = cmp.Or(c.SweepEvery, 5*time.Second)
	c.AskEvery = cmp.Or(c.AskEvery, 10*time.Second)
	c.ReconcileWithin = cmp.Or(c.ReconcileWithin, 25*time.Second)
}

// Parts are what a Relay works with. All are needed.
type Parts struct {
	DB        *sql.DB
	Publisher *broker.Publisher
	Topology  *broker.Topology
	Broker    broker.Config
	// Appended gets a value after producers that wake the relay have appended;
	// nil where it is to look by itself.
	Appended <-chan struct{}
	// Messages signs what is published.
	Messages *envelope.Authenticator
	Logger   *slog.Logger
	Metrics  prometheus.Registerer
}

// Relay forwards the log.
type Relay struct {
	db        *sql.DB
	publisher *broker.Publisher
	topology  *broker.Topology
	broker    broker.Config
	names     broker.Names
	appended  <-chan struct{}
	messages  *envelope.Authenticator
	logger    *slog.Logger

	cfg     Config
	metrics metrics
	// trouble is what keeps the relay from forwarding, nil when nothing does.
	trouble atomic.Pointer[trouble]
	// leads says whether this relay is the active one, and woken has a value
	// after Wake.
	leads atomic.Bool
	woken chan struct{}
	// stuck outlives the term that an event ended by not being confirmed.
	stuck stuck
	// quarantined is how many records an operator has yet to look at.
	quarantined atomic.Int64
}

// New returns a Relay that does nothing until Run.
func New(cfg Config, parts Parts) *Relay {
	cfg.fill()
	r := &Relay{
		db: parts.DB, publisher: parts.Publisher, topology: parts.Topology, broker: parts.Broker, names: parts.Broker.Names(), appended: parts.Appended, messages: parts.Messages, logger: parts.Logger,
		cfg: cfg, metrics: newMetrics(parts.Metrics), woken: make(chan struct{}, 1),
	}
	r.trouble.Store(&trouble{reason: "has not begun to forward yet"})
	return r
}

// Wake makes the relay look at once for what was appended, and reports whether
// it is the active one.
func (r *Relay) Wake() bool {
	if !r.leads.Load() {
		return false
	}
	select {
	case r.woken <- struct{}{}:
	default:
	}
	return true
}

// Run forwards until ctx ends. It returns nil then, with the batch in hand
// either finished or not begun.
func (r *Relay) Run(ctx context.Context) error {
	wait := backoff{}
	for ctx.Err() == nil {
		err := r.lead(ctx)
		switch {
		case ctx.Err() != nil:
			return nil //nolint:nilerr // we were told to stop
		case err == nil: // another relay leads
			r.trouble.Store(nil)
			wait.reset()
			pause(ctx, r.cfg.Standby)
		default:
			r.interrupted(err)
			pause(ctx, wait.next())
		}
	}
	return nil
}

// lead takes the lead where it can and forwards until something fails. It
// returns nil at once where another relay has the lead.
func (r *Relay) lead(ctx context.Context) (err error) {
	lead, err := postgres.TryLead(ctx, r.db, "relay")
	if err != nil || lead == nil {
		return err
	}
	defer func() { err = errors.Join(err, lead.Release()) }()
	r.leads.Store(true)
	defer r.leads.Store(false)
	r.metrics.leading.Set(1)
	defer r.metrics.leading.Set(0)

	// A failed publish ends a term, not the lead: the next term declares the
	// topology anew, which is what a wiped broker needs.
	wait := backoff{}
	for {
		t := newTerm(r, lead)
		err := t.serve(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, postgres.ErrUnavailable), errors.Is(err, ErrFenced):
			return fmt.Errorf("lose the lead: %w", err)
		}
		if t.forwarded {
			wait.reset()
		}
		r.interrupted(err)
		pause(ctx, wait.next())
		if err := lead.Check(ctx); err != nil {
			return err
		}
	}
}

// pause waits for d or for the end of ctx.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// backoff doubles from 50 ms to 2 s: what fails is on the same network, and
// recovery should follow its return closely.
type backoff struct{ last time.Duration }

func (b *backoff) next() time.Duration {
	b.last = min(max(2*b.last, 50*time.Millisecond), 2*time.Second)
	return b.last
}

func (b *backoff) reset() { b.last = 0 }
