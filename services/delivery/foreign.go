package delivery

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"posthorn/services/internal/broker"
	"posthorn/services/internal/envelope"
	"posthorn/services/internal/subscription"
)

// errMisrouted is why a message from Posthorn is parked: it is for another
// subscription.
var errMisrouted = errors.New("message is not for this subscription")

const (
	// Up to parkedAtMost foreign messages of a subscription are parked and logged
	// within parkedWithin. The others are dropped, which loses nothing: owed
	// deliveries are in the ledger, and are sent again.
	parkedAtMost = 100
	parkedWithin = time.Minute
	// keysDiffer is how long messages with a wrong signature, and none with a
	// right one, count as a sign of different keys.
	keysDiffer = time.Minute
)

// parking counts a subscription's recently parked messages.
type parking struct {
	mu    sync.Mutex
	since time.Time
	count int
}

// take reports whether there is room for one more.
func (p *parking) take(now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if now.Sub(p.since) > parkedWithin {
		p.since, p.count = now, 0
	}
	p.count++
	return p.count <= parkedAtMost
}

// signatures records when messages last arrived with a right and with a wrong
// signature, in seconds since 1970.
type signatures struct{ right, wrong atomic.Int64 }

func (s *signatures) verified() {
	// Written once a second, not for every message.
	if now := time.Now().Unix(); s.right.Load() != now {
		s.right.Store(now)
	}
}

// err returns an error while no message verifies. A few that do not, among
// others that do, are foreign, and do not prevent deliveries.
func (s *signatures) err(now time.Time) error {
	right, wrong := s.right.Load(), s.wrong.Load()
	window := int64(keysDiffer / time.Second)
	if wrong == 0 || wrong <= now.Unix()-window || right > wrong-window {
		return nil
	}
	return errors.New("messages do not verify: set the same POSTHORN_SECRET_KEY for relay and delivery")
}

// open verifies a message and reads its envelope.
func (s *Service) open(c *consumer, m broker.Message) (token, error) {
	e, err := s.authenticator.Open(m.Headers, content(c.id, m))
	t := token{c, m, e}
	if err != nil {
		if errors.Is(err, envelope.ErrUnverified) {
			s.metrics.unverified.Inc()
			if !errors.Is(err, envelope.ErrUnsigned) {
				s.signatures.wrong.Store(time.Now().Unix())
			}
		}
		return t, err
	}
	s.signatures.verified()
	return t, nil
}

// content is the content that the envelope of a subscription's message is bound to.
func content(id subscription.ID, m broker.Message) envelope.Content {
	return envelope.Content{Subscription: string(id), ID: m.ID, ContentType: m.ContentType, Body: m.Body}
}

// wanted reports whether the message is for this subscription with its current
// settings. A message for all subscriptions of a type that these settings do not
// match was published before they changed, or was copied here by hand.
func wanted(sub *subscription.Subscription, e envelope.Envelope) bool {
	if e.Type == "" {
		return true // for this subscription, by its signature
	}
	// An account on the shared exchange is not named on the wire.
	same := e.Account == sub.Account || !broker.OwnExchange(e.Account) && !broker.OwnExchange(sub.Account)
	return same && sub.Matches(e.Type)
}

// foreign parks a message that Posthorn did not write, or wrote for another
// subscription, so that it is neither redelivered nor sent, and can be inspected.
func (s *Service) foreign(ctx context.Context, t token, why error) error {
	s.metrics.foreign.Inc()
	c := t.consumer
	if !c.parked.take(time.Now()) {
		s.logger.Debug("foreign message is dropped: there are too many", "subscription", c.id, "error", why)
		return nil
	}
	s.logger.Warn("foreign message is parked", "subscription", c.id, "error", why)
	headers := maps.Clone(t.message.Headers)
	if headers == nil {
		headers = map[string]string{}
	}
	headers[headerReason] = why.Error()
	return s.park(ctx, t, headers)
}

// park puts the message into the subscription's dead-letter queue, and declares
// the queue if it is missing.
func (s *Service) park(ctx context.Context, t token, headers map[string]string) error {
	id := string(t.consumer.id)
	letter := broker.Publishing{
		Key: s.names.DeadQueue(id), Mandatory: true, Persistent: true, // it is for operators
		ID: t.message.ID, Headers: headers, ContentType: t.message.ContentType, Body: t.message.Body,
	}
	outcome, err := s.messages.Do(ctx, letter)
	if err == nil && outcome == broker.Returned {
		if err := s.topology.DeclareDead(ctx, id); err != nil {
			return fmt.Errorf("park message: %w", err)
		}
		outcome, err = s.messages.Do(ctx, letter)
	}
	if err != nil {
		return fmt.Errorf("park message: %w", err)
	}
	if outcome != broker.Acked {
		return fmt.Errorf("park message: %s", outcome)
	}
	return nil
}
