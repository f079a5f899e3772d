// Package relay forwards the outbox to the broker: it reads the log in order,
// publishes every event to the topic exchange, and enters in the ledger which
// subscriptions are owed it.
//
// It promises that every event is published at least once and in position
// order; that a subscription gets exactly the events after its creation,
// because topology follows the same log; and that an event is published twice
// only around a crash or a lost connection, and is then marked as suspect.
// One relay is active, any number stand by; one that hangs is replaced within
// postgres.LeaseTimeout. While the broker or the database is down it waits,
// then continues by itself. It sends lost messages again from the ledger.
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
	// Poll is how often the relay looks for a new record while records come from
	// producers that do not wake it. Otherwise it looks every 20 ms, and every
	// 100 ms after ten seconds without a record. Default 2 ms.
	Poll time.Duration
	// Pace is the shortest time between the starts of two windows: records that
	// arrive in between share the commits of one. Default 3 ms.
	Pace time.Duration
	// Positions and Bytes limit a window, which is read and published at once.
	// Positions limits the events that a crash makes suspect, Bytes the memory. A
	// window holds the records that arrived during the one before, so under load
	// its size follows from the rate; beyond 1,000, statements and confirms get no
	// cheaper. Defaults 1,000 and 8 MiB.
	Positions, Bytes int
	// Standby is how often a standby tries to take over. Default 500 ms.
	Standby time.Duration
	// SweepEvery is how often the relay looks for overdue deliveries. Default 5 s.
	SweepEvery time.Duration
	// AskEvery is how often the relay checks whether the broker has lost its
	// messages, in addition to the check after each lost connection: in a cluster,
	// the queue memory may be on another node. Default 10 s.
	AskEvery time.Duration
	// ReconcileWithin is how long one pass over all queues and bindings takes.
	// Default 25 s.
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

// Parts are the dependencies of a Relay. All are required.
type Parts struct {
	DB        *sql.DB
	Publisher *broker.Publisher
	Topology  *broker.Topology
	Broker    broker.Config
	// Appended gets a value after a producer that wakes the relay has appended;
	// nil makes the relay only poll.
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
	// trouble is why the relay cannot forward, nil if it can.
	trouble atomic.Pointer[trouble]
	// leads reports whether this relay is the active one. woken has a value after
	// Wake.
	leads atomic.Bool
	woken chan struct{}
	// stuck outlives a term that ended because an event was not confirmed.
	stuck stuck
	// quarantined is how many records no operator has reviewed yet.
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

// Wake makes the relay look for new records at once, and reports whether it is
// the active one.
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

// Run forwards until ctx ends. It then returns nil, with the current batch
// either finished or not begun.
func (r *Relay) Run(ctx context.Context) error {
	wait := backoff{}
	for ctx.Err() == nil {
		err := r.lead(ctx)
		switch {
		case ctx.Err() != nil:
			return nil //nolint:nilerr // stopped by ctx
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

// lead takes the lead if it can, and forwards until something fails. It returns
// nil at once if another relay has the lead.
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
	// topology again, as a wiped broker needs.
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

// backoff doubles from 50 ms to 2 s: the failing servers are on the same
// network, and recovery should follow their return closely.
type backoff struct{ last time.Duration }

func (b *backoff) next() time.Duration {
	b.last = min(max(2*b.last, 50*time.Millisecond), 2*time.Second)
	return b.last
}

func (b *backoff) reset() { b.last = 0 }
