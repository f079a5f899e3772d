package relay

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"posthorn/services/internal/broker"
	"posthorn/services/internal/eventlog"
	"posthorn/services/internal/ledger"
	"posthorn/services/internal/subscription"
)

// An event is rerouted when its failures reach this weight: after the broker has
// refused it twice, the second time alone in its window, or after more lost
// connections in a row than a network failure explains.
const (
	enoughFailures = 6
	weighsRefusal  = 3
	weighsLoss     = 1
)

// stuck keeps one event from holding up the log. After a failure the window
// is narrowed to the first event that was not confirmed, and widened again as
// events get through. An event that keeps failing alone is rerouted.
type stuck struct {
	window   int   // positions in the next window; 0 for no limit
	position int64 // of the event that was not confirmed
	weight   int   // of its consecutive failures
	err      error // the last failure
}

// width is how many positions the next window may have.
func (s *stuck) width(most int) int {
	if s.window == 0 || s.window > most {
		s.window = 0
		return most
	}
	return s.window
}

// observe records whether a window succeeded or ended at an event that was not
// confirmed. Position 0 is for a failure that is not about an event.
func (s *stuck) observe(position int64, err error) {
	switch {
	case err == nil:
		*s = stuck{window: 2 * s.window}
		return
	case position == 0, errors.Is(err, broker.ErrBlocked), errors.Is(err, broker.ErrClosed):
		return
	}
	if s.position != position {
		s.position, s.weight = position, 0
	}
	switch {
	case broker.Refused(err):
		s.weight += weighsRefusal
	case s.window == 1:
		s.weight += weighsLoss
	}
	s.window, s.err = 1, err
}

// reason is why the event at a position is to be rerouted, or nil.
func (s *stuck) reason(position int64) error {
	if position != s.position || s.weight < enoughFailures {
		return nil
	}
	return s.err
}

// probeKey routes to no queue: a confirm of a message with it shows that the
// broker accepts messages.
const probeKey = "posthorn.probe"

// reroute sends an event directly to the queue of each subscription that is owed
// it, around the exchange that did not accept it. Deliveries that do not get
// through are in the ledger, where the sweeper finds them. If the broker accepts
// no messages at all the event is not at fault, and reroute fails.
//
// A queue that refuses the event is not bound to the exchange for the rest of
// the term: it would make the exchange refuse every event.
func (b *batch) reroute(ctx context.Context, r *eventlog.Record, to recipients, cause ledger.Cause, why error) error {
	messages := []broker.Publishing{{Exchange: b.term.names.Deliver(), Key: probeKey, ID: r.ID}}
	ids := slices.Collect(to.all())
	for _, id := range ids {
		messages = append(messages, b.term.relay.message(b.addressed(id), r, b.envelope(r, cause)))
	}
	var outcomes []broker.Outcome
	var err error
	if lost := b.term.lead.Hold(ctx, func(ctx context.Context) { outcomes, err = b.term.publisher.PublishAll(ctx, messages) }); lost != nil {
		b.truncate(r.Position)
		return lost
	}
	if outcomes[0] != broker.Acked {
		b.truncate(r.Position)
		return fmt.Errorf("publish event at position %d: %w", r.Position, err)
	}
	b.setAside(r, eventlog.Rerouted, why)
	for i, id := range ids {
		if outcomes[i+1] != broker.Nacked {
			continue
		}
		b.term.logger.Error("queue refuses messages and is now addressed directly: does it have a length limit?", "subscription", id)
		if err := b.unbind(ctx, id); err != nil {
			return err
		}
	}
	return nil
}

// unbind makes the relay address a subscription for the rest of the term.
func (b *batch) unbind(ctx context.Context, id subscription.ID) error {
	b.term.mu.Lock()
	defer b.term.mu.Unlock()
	route, ok := b.term.routes.get(id)
	if !ok {
		return nil
	}
	gone := b.term.routes.bound(route)
	b.term.routes.address(id)
	if err := b.term.topology.Unbind(ctx, string(id), route.Account, gone); err != nil {
		return fmt.Errorf("unbind %s: %w", id, err)
	}
	return nil
}
