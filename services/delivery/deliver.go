package delivery

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"time"

	"posthorn/events"
	"posthorn/services/internal/broker"
	"posthorn/services/internal/envelope"
	"posthorn/services/internal/failpoint"
	"posthorn/services/internal/ledger"
	"posthorn/services/internal/payload"
	"posthorn/services/internal/sender"
	"posthorn/services/internal/subscription"
)

// errGiveBack returns a message to its queue: its subscription is being paused,
// changed or stopped, and no attempt was begun.
var errGiveBack = errors.New("subscription is being stopped")

// errShortage is why no real attempt was made: this machine is short of files,
// ports or memory.
var errShortage = errors.New("short of files, ports or memory")

const (
	// enterLook and enterLooks are how often and how many times the ledger is
	// checked for a delivery that the relay has yet to enter.
	enterLook  = 100 * time.Millisecond
	enterLooks = 20
)

// Headers that a dead letter has in addition to those of its message.
const (
	headerReason     = "posthorn-reason"
	headerLastStatus = "posthorn-last-status"
	headerLastError  = "posthorn-last-error"
	headerErrorClass = "posthorn-error-class"
	headerDiedAt     = "posthorn-died-at"
)

// token is a message in flight, with its consumer and its envelope.
type token struct {
	consumer *consumer
	message  broker.Message
	envelope envelope.Envelope
}

// deliver makes the attempt for a message, records it, and sends the retry or
// dead letter that follows. Nil acknowledges the message.
func (s *Service) deliver(ctx context.Context, c *consumer, m broker.Message) error {
	t, err := s.open(c, m)
	if err == nil {
		err = events.ValidateID(m.ID)
	}
	if err != nil {
		return s.foreign(ctx, t, err)
	}
	if t.envelope.Wait > 0 {
		return s.sendLater(ctx, t, t.envelope.Wait)
	}

	at := place{t.envelope.Position, c.id}
	if !s.working.begin(at) {
		// A copy of a message in flight. The first one stays unacknowledged until
		// it is done, so the copy is not needed.
		s.metrics.copies.Inc()
		return nil
	}
	defer s.working.end(at)

	attempt, err := s.inTurn(ctx, t)
	for errors.Is(err, errShortage) {
		// The message waits here, without an attempt and without a slot, until
		// the gate opens again.
		attempt, err = s.inTurn(ctx, t)
	}
	if errors.Is(err, errMisrouted) {
		return s.foreign(ctx, t, err)
	}
	if err != nil || attempt == nil {
		return err
	}

	// Crash window: the request was made but is not in the ledger. The message
	// is redelivered and the request repeated, with the same webhook-id.
	failpoint.Hit("delivery.after_post")
	made := time.Now()
	if refused, err := s.attempts.Do(ctx, *attempt); err != nil || refused != nil {
		return fmt.Errorf("record attempt: %w", errors.Join(err, refused))
	}
	s.lag.observe(time.Since(made))
	c.window.finished.Add(1)
	c.window.bytes.Add(int64(len(m.Body)))
	// Crash window: the attempt is in the ledger and the message is redelivered.
	// It is dropped because its delivery is finished or its attempt made. The
	// message sent below may be lost: a retry is then overdue, and swept.
	failpoint.Hit("delivery.after_record")
	switch attempt.Status {
	case ledger.Retrying:
		t.envelope.Attempts = attempt.Number
		return s.sendLater(ctx, t, attempt.RetryIn)
	case ledger.Dead:
		return s.bury(ctx, t, *attempt)
	case ledger.Pending, ledger.Delivered, ledger.Cancelled:
	}
	return nil
}

// inTurn makes an attempt once it has a slot of the subscription's maxInFlight
// and one of the process's.
func (s *Service) inTurn(ctx context.Context, t token) (*ledger.Attempt, error) {
	c := t.consumer
	if err := c.acquire(ctx, t.message.Gone); err != nil {
		return nil, err
	}
	defer c.release()
	pass, err := s.gate.enter(ctx, c.hostName(), c.id, c.stopping)
	if err != nil {
		return nil, err
	}
	defer s.gate.exit(pass)
	return s.attempt(ctx, t)
}

// attempt makes one attempt and returns it with its verdict, or nil if the
// message turns out not to be due.
func (s *Service) attempt(ctx context.Context, t token) (*ledger.Attempt, error) {
	c, e := t.consumer, &t.envelope
	sub := c.settings.Load()
	switch {
	case sub.Status == subscription.Deleted:
		return nil, nil
	case e.Cause == ledger.CauseLive && e.Position <= sub.Since:
		// A relay that was suspended while another led may publish an old window
		// late, through new bindings.
		s.metrics.copies.Inc()
		return nil, nil
	case sub.Status != subscription.Active:
		return nil, errGiveBack
	}
	mine := wanted(sub, *e)
	asked := !mine || !fresh(*e, t.message.Redelivered, time.Since(e.PublishedAt), s.cfg.Fresh)
	if asked {
		due, err := s.due(ctx, t, ledger.Claim{For: sub.Timeout + 5*time.Second, Entered: !mine})
		if err != nil || !due {
			return nil, err
		}
	}
	result := s.sender.Send(ctx, sender.Request{
		URL: sub.URL, Body: t.message.Body, ID: t.message.ID, Secrets: sub.Secrets(time.Now()), Timeout: sub.Timeout, Headers: payload.Trace{Parent: e.TraceParent, State: e.TraceState}.Headers(),
	})
	switch result.Class {
	case sender.ClassCancelled:
		return nil, errGiveBack
	case sender.ClassShortage:
		return nil, s.runShort(ctx, t, result, asked)
	case sender.ClassOK, sender.ClassStatus, sender.ClassTimeout, sender.ClassConnect, sender.ClassTLS, sender.ClassProtocol:
	case sender.ClassAddress:
		s.refused(c, sub, result.Refusal)
	}
	attempt := attemptOf(c.id, t.message.ID, *e, result)
	// The operator's metrics distinguish a name without an address from a refused one.
	class, _, _ := strings.Cut(cmp.Or(result.Refusal, string(result.Class)), ":")
	s.metrics.attempts.WithLabelValues(class).Inc()
	s.metrics.duration.Observe(result.Duration.Seconds())
	if result.Reconnected {
		s.metrics.reconnects.Inc()
	}
	attempt.Status, attempt.RetryIn = verdict(result, attempt.Number, s.schedule(c.settings.Load()), rand.Float64)
	return attempt, nil
}

// due asks the ledger for the right to make the attempt.
func (s *Service) due(ctx context.Context, t token, claim ledger.Claim) (bool, error) {
	e := &t.envelope
	claim.Position, claim.Subscription, claim.EventID, claim.Cause = e.Position, t.consumer.id, t.message.ID, e.Cause
	claim.Run, claim.Attempts = e.Run, e.Attempts
	answer, err := s.claims.Do(ctx, claim)
	if err == nil && answer.Absent {
		answer, err = s.entered(ctx, t.consumer, claim, answer)
	}
	switch {
	case err != nil:
		return false, fmt.Errorf("claim attempt: %w", err)
	case answer.OK:
		return true, nil
	case answer.Absent && answer.Relayed:
		return false, errMisrouted
	case answer.Absent: // the relay publishes it again, or enters it and the sweeper sends it
	case answer.Run != e.Run: // a later run has begun, with a new message
	case answer.Status == ledger.Dead && t.message.Redelivered:
		// We may have crashed between the ledger and the dead-letter queue.
		// A second copy there is better than none.
		return false, s.bury(ctx, t, ledger.Attempt{Number: answer.Attempts})
	case answer.Busy > 0 && answer.Attempts <= e.Attempts:
		// Another process has the claim, or died with it. Check again when the
		// claim expires.
		e.Suspect = true
		return false, s.sendLater(ctx, t, answer.Busy)
	}
	s.metrics.copies.Inc()
	return false, nil
}

// entered waits for a delivery that the relay has yet to enter in the ledger,
// which it does right after publishing.
func (s *Service) entered(ctx context.Context, c *consumer, claim ledger.Claim, answer ledger.Claimed) (ledger.Claimed, error) {
	var err error
	for range enterLooks {
		if err != nil || !answer.Absent || answer.Relayed {
			break
		}
		timer := time.NewTimer(enterLook)
		select {
		case <-timer.C:
		case <-c.stopping:
			timer.Stop()
			return answer, errGiveBack
		case <-ctx.Done():
			timer.Stop()
			return answer, ctx.Err()
		}
		answer, err = s.claims.Do(ctx, claim)
	}
	return answer, err
}

// sendLater sends the message through a retry queue. When it returns, it waits
// for the rest that the queue's delay does not cover.
func (s *Service) sendLater(ctx context.Context, t token, wait time.Duration) error {
	id, m, e := t.consumer.id, &t.message, t.envelope
	var rung time.Duration
	rung, e.Wait = s.broker.NextHop(wait)
	e.PublishedAt = time.Now()
	e.Type, e.Account = "", "" // from here on it is for this subscription only
	defer failpoint.Hit("delivery.after_next")
	outcome, err := s.messages.Do(ctx, broker.Publishing{
		Exchange: s.names.Retry(rung), Key: string(id), Mandatory: true,
		ID: m.ID, Headers: s.authenticator.Headers(e, content(id, *m)), ContentType: m.ContentType, Body: m.Body,
	})
	if err != nil || outcome != broker.Acked {
		// The ledger has the time of the next attempt: the sweeper sends it.
		s.metrics.unsent.Inc()
		s.logger.Debug("retry is left to the sweeper", "subscription", id, "event", m.ID, "outcome", outcome.String(), "error", err)
	}
	return nil
}

// bury puts the message into the subscription's dead-letter queue, with headers
// that give the reason.
func (s *Service) bury(ctx context.Context, t token, last ledger.Attempt) error {
	headers := maps.Clone(t.message.Headers)
	headers["posthorn-attempts"] = strconv.Itoa(last.Number)
	headers[headerReason] = "attempts exhausted"
	headers[headerDiedAt] = time.Now().UTC().Format(time.RFC3339)
	if last.HTTPStatus != 0 {
		headers[headerLastStatus] = strconv.Itoa(last.HTTPStatus)
	}
	if last.ErrorClass != "" {
		headers[headerErrorClass], headers[headerLastError] = last.ErrorClass, last.Error
	}
	s.metrics.dead.Inc()
	s.logger.Info("delivery is dead", "subscription", t.consumer.id, "event", t.message.ID, "attempts", last.Number,
		"last_status", last.HTTPStatus, "last_error", last.Error)
	if err := s.park(ctx, t, headers); err != nil {
		// The ledger has it as dead; only the copy for inspection is missing.
		s.logger.Warn("dead letter is only in the ledger", "subscription", t.consumer.id, "event", t.message.ID, "error", err)
	}
	return nil
}

// place names a delivery.
type place struct {
	position int64
	id       subscription.ID
}

// working is the set of deliveries that this process has in flight.
type working struct {
	mu  sync.Mutex
	set map[place]struct{}
}

func (w *working) begin(p place) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, ok := w.set[p]; ok {
		return false
	}
	if w.set == nil {
		w.set = map[place]struct{}{}
	}
	w.set[p] = struct{}{}
	return true
}

func (w *working) end(p place) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.set, p)
}
