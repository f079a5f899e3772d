package ledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/lib/pq"

	"posthorn/services/internal/postgres"
	"posthorn/services/internal/subscription"
)

// DeliveryID identifies a delivery by its key in the ledger.
type DeliveryID struct {
	Position     int64
	Subscription subscription.ID
}

const deliveryPrefix = "dlv_"

func (d DeliveryID) String() string {
	return deliveryPrefix + strconv.FormatInt(d.Position, 10) + "_" + d.Subscription.UUID()
}

// ParseDeliveryID parses the result of String. It returns ErrNotFound for a text
// that cannot be the id of a delivery.
func ParseDeliveryID(s string) (DeliveryID, error) {
	rest, ok := strings.CutPrefix(s, deliveryPrefix)
	place, sub, found := strings.Cut(rest, "_")
	position, err := strconv.ParseInt(place, 10, 64)
	if !ok || !found || err != nil || position < 1 {
		return DeliveryID{}, postgres.ErrNotFound
	}
	id, err := subscription.ParseID("sub_" + sub)
	if err != nil {
		return DeliveryID{}, postgres.ErrNotFound
	}
	return DeliveryID{Position: position, Subscription: id}, nil
}

// Delivery is a row of the ledger with the data of its event.
type Delivery struct {
	DeliveryID
	EventID, EventType    string
	Status                Status
	Cause                 Cause
	Run, Attempts         int
	LastStatus            int
	LastError             string
	ErrorClass            string // of the last attempt
	NextAttemptAt         time.Time
	CreatedAt, FinishedAt time.Time
}

const deliveryColumns = `
	d.position, d.subscription_id, d.event_id, coalesce(o.type, ''), d.status, d.cause, d.run, d.attempts, coalesce(d.last_status, 0),
	coalesce(d.last_error, ''), coalesce((
		SELECT a.error_class FROM posthorn.attempts a
		WHERE a.position = d.position AND a.subscription_id = d.subscription_id AND a.run = d.run AND a.number = d.attempts
		ORDER BY a.started_at DESC LIMIT 1), ''),
	d.next_attempt_at, d.created_at, d.finished_at`

func scanDelivery(scan func(...any) error) (Delivery, error) {
	var (
		d              Delivery
		sub            uuid.UUID
		next, finished sql.NullTime
	)
	if err := scan(&d.Position, &sub, &d.EventID, &d.EventType, &d.Status, &d.Cause, &d.Run, &d.Attempts, &d.LastStatus, &d.LastError,
		&d.ErrorClass, &next, &d.CreatedAt, &finished); err != nil {
		return Delivery{}, fmt.Errorf("read delivery: %w", err)
	}
	d.Subscription = subscription.FromUUID(sub)
	d.NextAttemptAt, d.FinishedAt = next.Time, finished.Time
	return d, nil
}

// ByID returns a delivery to one of the account's subscriptions.
func ByID(ctx context.Context, q postgres.Queryer, account string, id DeliveryID) (Delivery, error) {
	d, err := scanDelivery(q.QueryRowContext(ctx, `
		SELECT `+deliveryColumns+`
		FROM posthorn.deliveries d
		JOIN posthorn.subscriptions s ON s.id = d.subscription_id AND s.account = $3
		LEFT JOIN posthorn.outbox o ON o.position = d.position
		WHERE d.position = $1 AND d.subscription_id = $2`, id.Position, id.Subscription.UUID(), account).Scan)
	return d, postgres.Translate(err)
}

// DeadLetterFilter selects dead deliveries for a list.
type DeadLetterFilter struct {
	Account      string
	Subscription subscription.ID
	DeadFilter
	// Before is the id of the last delivery of the previous page.
	Before *DeliveryID
	Limit  int
}

// DeadLetters returns one page of an account's dead deliveries, those of the
// latest events first.
func DeadLetters(ctx context.Context, q postgres.Queryer, f DeadLetterFilter) (postgres.Page[Delivery], error) {
	var sub, position, last any
	if f.Subscription != "" {
		sub = f.Subscription.UUID()
	}
	if f.Before != nil {
		position, last = f.Before.Position, f.Before.Subscription.UUID()
	}
	return postgres.ReadPage(ctx, q, "list dead letters", `
		SELECT `+deliveryColumns+`, octet_length(coalesce(d.last_error, '')) + 512 AS page_size
		FROM posthorn.deliveries d
		JOIN posthorn.subscriptions s ON s.id = d.subscription_id AND s.account = $1
		LEFT JOIN posthorn.outbox o ON o.position = d.position
		WHERE ($2::uuid IS NULL OR d.subscription_id = $2)
		  AND ($3::bigint IS NULL OR (d.position <= $3 AND (d.position, d.subscription_id) < ($3, $4::uuid))) AND `+DeadConditions(5),
		"position DESC, subscription_id DESC", f.Limit, append([]any{f.Account, sub, position, last}, f.Args()...), scanDelivery)
}

// ErrCount is wrapped by PurgeDeadLetters if the number of dead letters differs
// from the confirmed one.
var ErrCount = errors.New("the count differs from the confirmed one")

// PurgeDeadLetters cancels a subscription's dead deliveries that the filter
// selects, if their number is exactly the confirmed one. It returns their
// number, with ErrCount if nothing was done.
func PurgeDeadLetters(ctx context.Context, db *sql.DB, account string, id subscription.ID, f DeadFilter, confirmed int64) (count int64, err error) {
	err = postgres.CommitTx(ctx, db, func(tx *sql.Tx) error {
		var there bool
		if err := tx.QueryRowContext(ctx, `
			SELECT true FROM posthorn.subscriptions WHERE id = $1 AND account = $2`, id.UUID(), account).Scan(&there); err != nil {
			return fmt.Errorf("look for subscription: %w", err)
		}
		var positions pq.Int64Array
		args := append([]any{id.UUID()}, f.Args()...)
		if err := tx.QueryRowContext(ctx, `
			SELECT array_agg(position) FROM (
				SELECT d.position FROM posthorn.deliveries d
				WHERE d.subscription_id = $1 AND `+DeadConditions(2)+`
				ORDER BY d.position FOR NO KEY UPDATE
			) dead`, args...).Scan(&positions); err != nil {
			return fmt.Errorf("count dead letters: %w", err)
		}
		if count = int64(len(positions)); count != confirmed {
			return ErrCount
		}
		if count == 0 {
			return nil
		}
		if _, err := tx.ExecContext(ctx, `
			UPDATE posthorn.deliveries SET status = 'cancelled', finished_at = clock_timestamp()
			WHERE subscription_id = $1 AND position = ANY ($2)`, id.UUID(), positions); err != nil {
			return fmt.Errorf("purge dead letters: %w", err)
		}
		return AskDeadQueueCheck(ctx, tx, id)
	})
	return count, err
}

// DeliveryAttempts returns the attempts of all runs of a delivery, the first one
// first. If there are more than a page holds, it returns the latest ones.
func DeliveryAttempts(ctx context.Context, q postgres.Queryer, id DeliveryID) (postgres.Page[LoggedAttempt], error) {
	page, err := postgres.ReadPage(ctx, q, "list attempts of delivery", `
		SELECT `+attemptColumns+`, `+attemptSize+` AS page_size FROM posthorn.attempts a
		WHERE a.position = $1 AND a.subscription_id = $2`,
		"run DESC, number DESC, started_at DESC", 1000, []any{id.Position, id.Subscription.UUID()},
		func(scan func(...any) error) (LoggedAttempt, error) {
			a, err := readAttempt(scan)
			a.Subscription = id.Subscription
			return a, err
		})
	slices.Reverse(page.Items)
	return page, err
}

// Waiting is the condition on a row d of the ledger that it waits for a retry
// that is not being made at this moment. A new run can begin at once: the
// message of the earlier run is ignored when it arrives.
const Waiting = `(d.status = 'retrying' AND d.next_attempt_at IS NOT NULL AND (d.claimed_until IS NULL OR d.claimed_until < clock_timestamp()))`

// DeadConditions returns the conditions of a DeadFilter on a row d of the ledger,
// with parameters from $n.
func DeadConditions(n int) string { return "d.status = 'dead' AND " + FailedConditions(n) }

// FailedConditions returns the conditions of a DeadFilter except for the state.
// A waiting delivery has no time of death.
func FailedConditions(n int) string {
	return strings.NewReplacer("$a", fmt.Sprintf("$%d", n), "$b", fmt.Sprintf("$%d", n+1), "$c", fmt.Sprintf("$%d", n+2),
		"$d", fmt.Sprintf("$%d", n+3)).Replace(`
	($a = '' OR EXISTS (SELECT 1 FROM posthorn.attempts a WHERE a.position = d.position AND a.subscription_id = d.subscription_id
	                        AND a.run = d.run AND a.number = d.attempts AND a.error_class = $a))
	AND ($b = 0 OR d.last_status = $b)
	AND ($c::timestamptz IS NULL OR d.finished_at >= $c) AND ($d::timestamptz IS NULL OR d.finished_at < $d)`)
}

// Args returns the four parameters of DeadConditions and FailedConditions.
func (f DeadFilter) Args() []any {
	return []any{f.ErrorClass, f.LastStatus, postgres.TimeOrNull(f.Since), postgres.TimeOrNull(f.Until)}
}

// DeadFilter selects dead deliveries; the zero value of a field selects all.
type DeadFilter struct {
	ErrorClass string
	LastStatus int
	// Since and Until bound the time of death: at or after, and before.
	Since, Until time.Time
}
