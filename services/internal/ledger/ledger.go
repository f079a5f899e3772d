package ledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/lib/pq"

	"posthorn/services/internal/eventlog"
	"posthorn/services/internal/postgres"
	"posthorn/services/internal/subscription"
)

// Status is the state of one event owed to one subscription.
type Status string

// The states of a delivery; the last three are final.
const (
	Pending   Status = "pending"
	Retrying  Status = "retrying"
	Delivered Status = "delivered"
	Dead      Status = "dead"
	Cancelled Status = "cancelled"
)

// Attempt is one HTTP request of a delivery and its result.
type Attempt struct {
	Position     int64
	Subscription subscription.ID
	EventID      string
	Run          int // of the delivery: 0, plus one for each replay or redrive
	Number       int // of the attempt in its run, from 1
	Cause        Cause
	StartedAt    time.Time
	Duration     time.Duration
	HTTPStatus   int // 0 without a response
	ErrorClass   string
	Error        string
	// Headers and the start of the response, as far as they are kept.
	RequestHeaders, ResponseHeaders map[string]string
	ResponseBody                    []byte

	// Status of the delivery after this attempt, and for Retrying how long
	// until the next one, by the database's clock.
	Status  Status
	RetryIn time.Duration
}

// RecordAttempts enters a batch of attempts in the ledger and updates their
// deliveries, in one statement. A delivery's row may not exist yet: the relay
// commits its rows later. Final states stay final, except that a delivery that
// succeeded while it was being cancelled is delivered.
func RecordAttempts(ctx context.Context, q postgres.Queryer, batch []Attempt) error {
	n := len(batch)
	var (
		positions, numbers              = make([]int64, n), make([]int64, n)
		ids, eventIDs, causes           = make([]string, n), make([]string, n), make([]string, n)
		started                         = make([]string, n)
		durations, retryIn              = make([]int64, n), make([]sql.NullInt64, n)
		runs                            = make([]int64, n)
		statuses                        = make([]sql.NullInt64, n)
		classes, errs, next             = make([]string, n), make([]string, n), make([]string, n)
		requestHeaders, responseHeaders = make([]string, n), make([]string, n)
		bodies                          = make([][]byte, n)
	)
	for i, a := range batch {
		positions[i], numbers[i] = a.Position, int64(a.Number)
		ids[i], eventIDs[i], causes[i] = a.Subscription.UUID(), a.EventID, string(a.Cause)
		started[i] = a.StartedAt.UTC().Format(time.RFC3339Nano)
		durations[i], runs[i] = a.Duration.Microseconds(), int64(a.Run)
		statuses[i] = sql.NullInt64{Int64: int64(a.HTTPStatus), Valid: a.HTTPStatus != 0}
		classes[i], errs[i], next[i] = a.ErrorClass, a.Error, string(a.Status)
		retryIn[i] = sql.NullInt64{Int64: a.RetryIn.Microseconds(), Valid: a.Status == Retrying}
		requestHeaders[i], responseHeaders[i] = postgres.StringMapJSON(a.RequestHeaders), postgres.StringMapJSON(a.ResponseHeaders)
		bodies[i] = a.ResponseBody
		if bodies[i] == nil {
			bodies[i] = []byte{}
		}
	}
	// In key order, so that two batches that share rows wait for each other
	// instead of deadlocking.
	_, err := q.ExecContext(ctx, `
		WITH made AS MATERIALIZED (
			SELECT * FROM unnest($1::bigint[], $2::uuid[], $3::text[], $4::bigint[], $5::text[], $6::timestamptz[],
			                     $7::bigint[], $8::bigint[], $9::text[], $10::text[], $11::text[], $12::text[], $13::bytea[],
			                     $14::text[], $15::bigint[], $16::bigint[])
			AS a(position, subscription_id, event_id, number, cause, started_at, micros, http_status, error_class, error,
			     request_headers, response_headers, response_body, status, retry_in, run)
		), logged AS (
			INSERT INTO posthorn.attempts (position, subscription_id, run, number, cause, started_at, duration, status,
			    error_class, error, request_headers, response_headers, response_body, next_step)
			SELECT position, subscription_id, run, number, cause, started_at, micros * interval '1 microsecond', http_status,
			    error_class, error, request_headers::jsonb, response_headers::jsonb, response_body, status
			FROM made
			ON CONFLICT DO NOTHING
		)
		INSERT INTO posthorn.deliveries AS d (position, subscription_id, event_id, cause, status, run, attempts,
		    next_attempt_at, last_status, last_error, finished_at)
		SELECT DISTINCT ON (position, subscription_id) position, subscription_id, event_id, cause, status, run, number,
		    clock_timestamp() + retry_in * interval '1 microsecond', http_status, nullif(error, ''),
		    CASE WHEN status IN ('delivered', 'dead', 'cancelled') THEN clock_timestamp() END
		FROM made ORDER BY position, subscription_id, run DESC, status = 'delivered' DESC, number DESC
		ON CONFLICT (position, subscription_id) DO UPDATE
		SET status = excluded.status, attempts = excluded.attempts, next_attempt_at = excluded.next_attempt_at,
		    last_status = excluded.last_status, last_error = excluded.last_error,
		    finished_at = excluded.finished_at, claimed_until = NULL
		WHERE d.status <> 'delivered' AND d.run = excluded.run
		  AND (excluded.status = 'delivered' OR (d.status IN ('pending', 'retrying') AND d.attempts < excluded.attempts))`,
		pq.Array(positions), pq.Array(ids), pq.Array(eventIDs), pq.Array(numbers), pq.Array(causes), pq.Array(started),
		pq.Array(durations), pq.Array(statuses), pq.Array(classes), pq.Array(errs), pq.Array(requestHeaders),
		pq.Array(responseHeaders), pq.Array(bodies), pq.Array(next), pq.Array(retryIn), pq.Array(runs))
	if err != nil {
		return postgres.Translate(fmt.Errorf("record attempts: %w", err))
	}
	return nil
}

// Claim requests the exclusive right to make the next attempt of a delivery.
type Claim struct {
	Position     int64
	Subscription subscription.ID
	EventID      string
	Cause        Cause
	// Run of the delivery, and the attempts made in it before the claimed one.
	Run, Attempts int
	// For is how long the claim lasts if nothing is recorded.
	For time.Duration
	// Entered: the delivery must already be in the ledger.
	Entered bool
}

// Claimed answers a Claim.
type Claimed struct {
	// OK: the caller may make the attempt.
	OK bool
	// Status of the delivery if it may not, with its Run and Attempts.
	Status        Status
	Run, Attempts int
	// Busy is how long another claim on the same attempt still lasts.
	Busy time.Duration
	// Absent: the delivery is not in the ledger, but the claim requires it.
	// Relayed: the relay is past its event, and so does not owe it.
	Absent, Relayed bool
}

// ClaimAttempts grants each claim whose delivery is not finished, has had no
// more attempts in the run than the claim states, and is not claimed by another.
// It distinguishes a message that is due from one that may be a copy. A delivery
// whose row the relay has not committed yet is entered here, provided that its
// event is in the log.
func ClaimAttempts(ctx context.Context, q postgres.Queryer, claims []Claim) (answers []Claimed, err error) {
	n := len(claims)
	var (
		positions, attempts, micros = make([]int64, n), make([]int64, n), make([]int64, n)
		runs                        = make([]int64, n)
		ids, eventIDs, causes       = make([]string, n), make([]string, n), make([]string, n)
		entered                     = make([]bool, n)
	)
	for i, c := range claims {
		positions[i], attempts[i], micros[i] = c.Position, int64(c.Attempts), c.For.Microseconds()
		runs[i], entered[i] = int64(c.Run), c.Entered
		ids[i], eventIDs[i], causes[i] = c.Subscription.UUID(), c.EventID, string(c.Cause)
	}
	rows, err := q.QueryContext(ctx, `
		WITH given AS MATERIALIZED (
			SELECT * FROM unnest($1::bigint[], $2::uuid[], $3::text[], $4::text[], $5::bigint[], $6::bigint[], $8::bigint[], $9::boolean[])
			WITH ORDINALITY AS g(position, subscription_id, event_id, cause, attempts, micros, run, entered, ordinal)
		), claimed AS (
			INSERT INTO posthorn.deliveries AS d (position, subscription_id, event_id, cause, status, run, attempts, next_attempt_at, claimed_until)
			SELECT position, subscription_id, event_id, cause, 'pending', run, attempts, clock_timestamp() + $7::interval,
			       clock_timestamp() + micros * interval '1 microsecond'
			FROM given g
			WHERE EXISTS (SELECT FROM posthorn.deliveries k WHERE k.position = g.position AND k.subscription_id = g.subscription_id)
			   OR NOT g.entered AND EXISTS (SELECT FROM posthorn.outbox o WHERE o.position = g.position AND o.id = g.event_id)
			ORDER BY position, subscription_id
			ON CONFLICT (position, subscription_id) DO UPDATE SET claimed_until = excluded.claimed_until
			WHERE d.status IN ('pending', 'retrying') AND d.run = excluded.run AND d.attempts <= excluded.attempts
			  AND d.event_id = excluded.event_id AND (d.claimed_until IS NULL OR d.claimed_until < clock_timestamp())
			RETURNING d.position, d.subscription_id
		)
		SELECT g.ordinal, c.position IS NOT NULL, coalesce(d.status, 'pending'), coalesce(d.run, 0), coalesce(d.attempts, 0),
		       coalesce(extract(epoch FROM d.claimed_until - clock_timestamp()) * 1000000, 0)::bigint,
		       g.entered AND d.position IS NULL, g.position <= (SELECT position FROM posthorn.readers WHERE name = 'relay')
		FROM given g
		LEFT JOIN claimed c ON c.position = g.position AND c.subscription_id = g.subscription_id
		LEFT JOIN posthorn.deliveries d ON d.position = g.position AND d.subscription_id = g.subscription_id`,
		pq.Array(positions), pq.Array(ids), pq.Array(eventIDs), pq.Array(causes), pq.Array(attempts), pq.Array(micros),
		postgres.Interval(SweepGrace), pq.Array(runs), pq.Array(entered))
	if err != nil {
		return nil, postgres.Translate(fmt.Errorf("claim attempts: %w", err))
	}
	defer func() { err = postgres.Translate(errors.Join(err, rows.Close())) }()
	answers = make([]Claimed, n)
	for rows.Next() {
		var (
			ordinal int
			busy    int64
			c       Claimed
		)
		if err := rows.Scan(&ordinal, &c.OK, &c.Status, &c.Run, &c.Attempts, &busy, &c.Absent, &c.Relayed); err != nil {
			return nil, fmt.Errorf("read claim: %w", err)
		}
		c.Busy = max(0, time.Duration(busy)*time.Microsecond)
		answers[ordinal-1] = c
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("claim attempts: %w", err)
	}
	return answers, nil
}

// ReleaseClaim releases a claim that was granted but not used.
func ReleaseClaim(ctx context.Context, q postgres.Queryer, position int64, id subscription.ID, run, attempts int) error {
	_, err := q.ExecContext(ctx, `
		UPDATE posthorn.deliveries SET claimed_until = NULL
		WHERE position = $1 AND subscription_id = $2 AND run = $3 AND attempts <= $4 AND claimed_until IS NOT NULL`,
		position, id.UUID(), run, attempts)
	if err != nil {
		return postgres.Translate(fmt.Errorf("release claim: %w", err))
	}
	return nil
}

// Backlog is a subscription's number of counted deliveries.
type Backlog struct {
	Subscription subscription.ID
	Deliveries   int
}

// Overdue counts, for each subscription, the unfinished deliveries whose next
// attempt should have been made more than grace ago.
func Overdue(ctx context.Context, q postgres.Queryer, grace time.Duration) ([]Backlog, error) {
	return postgres.Collect(ctx, q, "count overdue deliveries", scanBacklog, `
		SELECT subscription_id, count(*) FROM posthorn.deliveries
		WHERE next_attempt_at < clock_timestamp() - $1::interval
		GROUP BY subscription_id ORDER BY subscription_id`, postgres.Interval(grace))
}

func scanBacklog(scan func(...any) error) (b Backlog, err error) {
	var id uuid.UUID
	err = scan(&id, &b.Deliveries)
	b.Subscription = subscription.FromUUID(id)
	return b, err
}

// Due is an overdue delivery with the event that it delivers.
type Due struct {
	eventlog.Record
	Subscription  subscription.ID
	Run, Attempts int
	Cause         Cause
}

// OverdueDeliveries returns the overdue deliveries of a subscription, the oldest
// events first. It leaves out those whose event is no longer in the log.
func OverdueDeliveries(ctx context.Context, q postgres.Queryer, id subscription.ID, grace time.Duration, limit int) ([]Due, error) {
	return postgres.Collect(ctx, q, "read overdue deliveries", scanDue, `
		SELECT o.position, o.kind, o.id, o.account, o.type, o.subject, o.data, o.metadata, o.attributes, o.occurred_at, o.recorded_at,
		       d.subscription_id, d.run, d.attempts, d.cause
		FROM (
			SELECT position, subscription_id, run, attempts, cause FROM posthorn.deliveries
			WHERE subscription_id = $1 AND next_attempt_at < clock_timestamp() - $2::interval
			ORDER BY position LIMIT $3
		) d JOIN posthorn.outbox o USING (position)
		ORDER BY o.position`, id.UUID(), postgres.Interval(grace), limit)
}

func scanDue(scan func(...any) error) (Due, error) {
	var (
		d  Due
		id uuid.UUID
		f  eventlog.RecordFields
	)
	if err := scan(f.Columns(&id, &d.Run, &d.Attempts, &d.Cause)...); err != nil {
		return Due{}, fmt.Errorf("read due delivery: %w", err)
	}
	d.Record, d.Subscription = f.Read(), subscription.FromUUID(id)
	return d, nil
}

// Postpone moves the next attempt of unfinished deliveries, so that the sweeper
// skips them until the message that it sent has had time to arrive.
func Postpone(ctx context.Context, q postgres.Queryer, id subscription.ID, positions []int64, by time.Duration) error {
	// A locked row is being finished: it needs no postponing, and waiting for it
	// could deadlock with a batch being recorded.
	_, err := q.ExecContext(ctx, `
		WITH due AS (
			SELECT position FROM posthorn.deliveries
			WHERE position = ANY ($2) AND subscription_id = $1 AND next_attempt_at IS NOT NULL
			FOR UPDATE SKIP LOCKED
		)
		UPDATE posthorn.deliveries d SET next_attempt_at = clock_timestamp() + $3::interval
		FROM due WHERE d.position = due.position AND d.subscription_id = $1`,
		id.UUID(), pq.Array(positions), postgres.Interval(by))
	if err != nil {
		return postgres.Translate(fmt.Errorf("postpone deliveries: %w", err))
	}
	return nil
}
