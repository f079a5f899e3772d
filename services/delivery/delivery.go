// Package delivery makes the HTTP requests: it consumes each active
// subscription's queue and sends its messages, signed, to the subscription's
// URL.
//
// It promises that a message is acknowledged only when the ledger has its
// outcome; that a failed delivery is retried by its schedule until it is
// delivered, or dead and in the queue dead.<subscription>; that a subscriber
// that is slow, hangs or fails delays no other; and that a request is repeated
// only around a crash, with the same webhook-id. Changed settings apply to every
// attempt that starts a second later. While the database is down it finishes
// the requests in flight and waits; while the broker is down it waits; stopping
// drains.
//
// There is one path for a delivery. A first attempt, a retry, a replay and a
// redrive differ in the envelope of their message.
package delivery

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"log/slog"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"posthorn/services/internal/broker"
	"posthorn/services/internal/envelope"
	"posthorn/services/internal/groupcommit"
	"posthorn/services/internal/ledger"
	"posthorn/services/internal/postgres"
	"posthorn/services/internal/readiness"
	"posthorn/services/internal/retry"
	"posthorn/services/internal/sender"
	"posthorn/services/internal/subscription"
)

// recordWait collects attempts for one commit. The requests are done by then and
// their slots are free: it delays only the acknowledgement, and lengthens the
// window in which a crash repeats a request.
const recordWait = 20 * time.Millisecond

const (
	// groupItems bounds a statement, and how many items fail with it. A group has
	// the items that arrived during the previous commit, so its size follows from
	// the rate: some 170 at 8,000 deliveries a second.
	groupItems = 500
	// groupFlushes lets one group be prepared and sent while another waits for
	// the disk; Postgres commits both with one sync.
	groupFlushes = 2
)

// Config of a Service. The zero value of each field means its default.
type Config struct {
	// Follow is how often the service looks for changed subscriptions. Default
	// 200 ms.
	Follow time.Duration
	// Fresh is how old a message may be to count as the first of its delivery
	// without a check of the ledger. It must be well below ledger.SweepGrace, or
	// a swept copy could overtake it. Default 15 s.
	Fresh time.Duration
	// MaxInFlight is how many requests may be in flight in all. Default: see
	// Capacity.
	MaxInFlight int
	// Schedule of subscriptions without one. Default retry.Default.
	Schedule retry.Schedule
}

// Parts are the dependencies of a Service. All are required.
type Parts struct {
	DB   *sql.DB
	Keys opener
	// Messages verifies messages from the relays and signs those sent to retry queues.
	Messages  *envelope.Authenticator
	Broker    broker.Config
	Publisher *broker.Publisher
	Topology  *broker.Topology
	Consumers *broker.Consumers
	Sender    *sender.Sender
	Logger    *slog.Logger
	Metrics   prometheus.Registerer
}

// opener decrypts signing secrets, and knows which key sealed them.
type opener interface {
	Open(sealed, associatedData []byte) ([]byte, error)
	Current(sealed []byte) bool
}

// Service delivers.
type Service struct {
	db            *sql.DB
	keys          opener
	authenticator *envelope.Authenticator
	broker        broker.Config
	names         broker.Names
	publisher     *broker.Publisher
	topology      *broker.Topology
	consumers     *broker.Consumers
	sender        *sender.Sender
	logger        *slog.Logger

	cfg     Config
	metrics metrics

	ledger   *postgres.Prepared
	attempts *groupcommit.Group[ledger.Attempt, error]
	claims   *groupcommit.Group[ledger.Claim, ledger.Claimed]
	messages *groupcommit.Group[broker.Publishing, broker.Outcome]
	working  working
	lag      shortest // from a request's end to its record in the ledger
	gate     *gate
	// draining ends when no message is in flight any more.
	draining   context.Context //nolint:containedctx // its end is an event of the Service, not of a call
	troubles   troubles
	signatures signatures
}

// New returns a Service that does nothing until Run.
func New(cfg Config, parts Parts) *Service {
	cfg.Follow = cmp.Or(cfg.Follow, 200*time.Millisecond)
	cfg.Fresh = cmp.Or(cfg.Fresh, 15*time.Second)
	if cfg.Schedule == nil {
		cfg.Schedule = retry.Default()
	}
	cfg.MaxInFlight, _ = Capacity(cfg.MaxInFlight)
	s := &Service{
		db: parts.DB, keys: parts.Keys, authenticator: parts.Messages, broker: parts.Broker, names: parts.Broker.Names(),
		publisher: parts.Publisher, topology: parts.Topology, consumers: parts.Consumers, sender: parts.Sender, logger: parts.Logger, cfg: cfg,
	}
	s.troubles.set(troubleSubscriptions, "has not read the subscriptions yet")
	s.gate = newGate(cfg.MaxInFlight, s.shortageChanged)
	s.metrics = newMetrics(parts.Metrics, s.gate)
	s.ledger = postgres.NewPrepared(parts.DB)
	s.attempts = groupcommit.New(groupcommit.Config{MaxItems: groupItems, MaxWait: recordWait, Flushes: groupFlushes}, s.record)
	s.claims = groupcommit.New(groupcommit.Config{MaxItems: groupItems, Flushes: groupFlushes}, s.claim)
	s.messages = groupcommit.New(groupcommit.Config{MaxItems: groupItems, Flushes: groupFlushes}, s.publish)
	return s
}

// Ready reports what keeps the service from delivering.
func (s *Service) Ready(context.Context) readiness.Report {
	problems := s.troubles.all()
	for _, err := range []error{s.publisher.Ready(), s.consumers.Ready()} {
		if reason := broker.Describe(err); reason != "" && !slices.Contains(problems, reason) {
			problems = append(problems, reason)
		}
	}
	if err := s.signatures.err(time.Now()); err != nil {
		problems = append(problems, err.Error())
	}
	return readiness.Report{Problems: problems}
}

// Run delivers until ctx ends and all requests in flight are finished and recorded.
func (s *Service) Run(ctx context.Context) error {
	// The groups serve the messages in flight, so they stop after them.
	draining, drained := context.WithCancel(context.WithoutCancel(ctx))
	defer drained()
	s.draining = draining
	defer s.gate.close()
	var groups errgroup.Group
	groups.Go(func() error { return s.attempts.Run(draining) })
	groups.Go(func() error { return s.claims.Run(draining) })
	groups.Go(func() error { return s.messages.Run(draining) })

	r := roster{service: s, active: map[subscription.ID]*consumer{}}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.consumers.Run(ctx) })
	g.Go(func() error { return r.follow(ctx) })
	err := g.Wait()
	drained()
	return errors.Join(err, groups.Wait())
}

// record enters attempts in the ledger, and does not give up while the database
// is down: until it is back, the messages stay unacknowledged and no new attempt
// begins.
func (s *Service) record(ctx context.Context, batch []ledger.Attempt) ([]error, error) {
	results := make([]error, len(batch))
	wait := 20 * time.Millisecond
	for {
		err := ledger.RecordAttempts(ctx, s.ledger, batch)
		switch {
		case err == nil:
			s.troubles.clear(troubleLedger)
			return results, nil
		case !errors.Is(err, postgres.ErrUnavailable):
			// One that the ledger rejects must not fail the rest of the batch.
			s.logger.Error("batch of attempts was rejected: recording them one by one", "count", len(batch), "error", err)
			for i := range batch {
				results[i] = ledger.RecordAttempts(ctx, s.ledger, batch[i:i+1])
			}
			return results, nil
		case s.draining.Err() != nil:
			return nil, err
		}
		if s.troubles.set(troubleLedger, cmp.Or(postgres.Describe(err), "the ledger cannot be written")) {
			s.logger.Warn("ledger cannot be written: deliveries wait", "error", err)
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-s.draining.Done():
			timer.Stop()
		}
		wait = min(2*wait, time.Second)
	}
}

func (s *Service) claim(ctx context.Context, batch []ledger.Claim) ([]ledger.Claimed, error) {
	return ledger.ClaimAttempts(ctx, s.db, batch)
}

// publish sends messages as a batch. Failures are in the outcomes.
func (s *Service) publish(ctx context.Context, batch []broker.Publishing) ([]broker.Outcome, error) {
	outcomes, err := s.publisher.PublishAll(ctx, batch)
	if err != nil && slices.ContainsFunc(outcomes, func(o broker.Outcome) bool { return o != broker.Acked && o != broker.Returned }) {
		s.logger.Warn("broker did not accept messages: the ledger keeps them", "count", len(batch), "error", err)
	}
	if len(outcomes) != len(batch) {
		return nil, err
	}
	return outcomes, nil
}
