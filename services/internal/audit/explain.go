package audit

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/google/uuid"

	"posthorn/services/internal/eventlog"
	"posthorn/services/internal/ledger"
	"posthorn/services/internal/postgres"
	"posthorn/services/internal/subscription"
)

// Reason says why a subscription has no delivery of an event.
type Reason string

// The reasons.
const (
	NoMatch      Reason = "type"         // none of its event types matched
	WasDisabled  Reason = "disabled"     // it was disabled
	WasDeleted   Reason = "deleted"      // it was deleted
	CreatedLater Reason = "createdLater" // it was created after the event
	TestOfOther  Reason = "test"         // it is a test event for another one
	// InQuarantine: the relay could not forward the event, and it waits for an
	// operator. GivenUp: an operator has given it up.
	InQuarantine Reason = "quarantined"
	GivenUp      Reason = "dropped"
	// Unreadable: the subscription's record at that time cannot be read.
	Unreadable Reason = "unreadable"
	// NotRelayed: there will be one; the relay has not reached the event yet.
	NotRelayed Reason = "notRelayedYet"
	// Unexplained: there should be one. This is a fault.
	Unexplained Reason = "missing"
)

// Matched reports whether the subscription wants the event's type, and
// something else prevents the delivery.
func (r Reason) Matched() bool {
	switch r {
	case NotRelayed, InQuarantine, GivenUp, Unexplained:
		return true
	case NoMatch, WasDisabled, WasDeleted, CreatedLater, TestOfOther, Unreadable:
	}
	return false
}

// EventDelivery is the status of an event for one subscription: a delivery, or
// the reason why there is none.
type EventDelivery struct {
	Subscription subscription.ID
	Reason       Reason
	// The rest is set if Reason is empty.
	Status        ledger.Status
	Cause         ledger.Cause
	Attempts      int
	NextAttemptAt time.Time
	LastStatus    int
	LastError     string
	CreatedAt     time.Time
	FinishedAt    time.Time
}

// EventDeliveries returns the status of the event for one page of the account's
// subscriptions, including deleted ones, in the order of their ids, starting
// after after. The state of a subscription at the event's position comes from
// its last record before it, so later changes do not matter. With owed, only
// those with a delivery are listed.
func EventDeliveries(ctx context.Context, q postgres.Queryer, event eventlog.Record, owed bool, after subscription.ID, limit int) (postgres.Page[EventDelivery], error) {
	last := after.UUID()
	if last == "" {
		last = uuid.Nil.String()
	}
	// The relay's position is read in the same statement, so in the same
	// snapshot, as the deliveries.
	return postgres.ReadPage(ctx, q, "list deliveries of event", `
		SELECT s.id, d.status, coalesce(d.cause, ''), coalesce(d.attempts, 0), d.next_attempt_at, coalesce(d.last_status, 0),
		       coalesce(d.last_error, ''), d.created_at, d.finished_at, r.data,
		       (SELECT position >= $2 FROM posthorn.readers WHERE name = 'relay'),
		       (SELECT status FROM posthorn.quarantine WHERE position = $2),
		       octet_length(coalesce(d.last_error, '')) + coalesce(octet_length(r.data), 0) + 256 AS page_size
		FROM posthorn.subscriptions s
		LEFT JOIN posthorn.deliveries d ON d.position = $2 AND d.subscription_id = s.id
		LEFT JOIN LATERAL (
			SELECT o.data FROM posthorn.outbox o
			WHERE o.kind = 'subscription' AND o.subject = 'sub_' || s.id::text AND o.position < $2
			ORDER BY o.position DESC LIMIT 1
		) r ON d.status IS NULL
		WHERE s.account = $1 AND s.id > $3 AND (d.status IS NOT NULL OR NOT $4)`,
		"id", limit, []any{event.Account, event.Position, last, owed},
		func(scan func(...any) error) (EventDelivery, error) { return readEventDelivery(event, scan) })
}

func readEventDelivery(event eventlog.Record, scan func(...any) error) (EventDelivery, error) {
	var (
		d                       EventDelivery
		id                      uuid.UUID
		status                  sql.NullString
		next, created, finished sql.NullTime
		record                  []byte
		relayed                 bool
		aside                   sql.NullString
	)
	err := scan(&id, &status, &d.Cause, &d.Attempts, &next, &d.LastStatus, &d.LastError, &created, &finished, &record, &relayed, &aside)
	if err != nil {
		return EventDelivery{}, fmt.Errorf("read delivery of event: %w", err)
	}
	d.Subscription, d.Status = subscription.FromUUID(id), ledger.Status(status.String)
	d.NextAttemptAt, d.CreatedAt, d.FinishedAt = next.Time, created.Time, finished.Time
	if !status.Valid {
		d.Reason = reason(event, d.Subscription, record, relayed, eventlog.QuarantineStatus(aside.String))
	}
	return d, nil
}

func reason(event eventlog.Record, id subscription.ID, record []byte, relayed bool, aside eventlog.QuarantineStatus) Reason {
	if event.Kind == eventlog.KindTest && event.Metadata[subscription.TestTarget] != string(id) {
		return TestOfOther
	}
	if record == nil {
		return CreatedLater
	}
	was, err := subscription.ParseRecord(record)
	switch {
	case err != nil:
		return Unreadable
	case was.Status == subscription.Deleted:
		return WasDeleted
	case was.Status == subscription.Disabled:
		return WasDisabled
	case event.Kind != eventlog.KindTest && !was.Matches(event.Type):
		return NoMatch
	case aside == eventlog.Held:
		return InQuarantine
	case aside == eventlog.Dropped:
		return GivenUp
	case !relayed:
		return NotRelayed
	default:
		return Unexplained
	}
}
