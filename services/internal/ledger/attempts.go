package ledger

import (
	"context"
	"fmt"
	"time"

	"posthorn/services/internal/postgres"
	"posthorn/services/internal/subscription"
)

// AttemptKey is the place of an attempt in the list of its subscription's attempts.
type AttemptKey struct {
	StartedAt time.Time
	Position  int64
	Number    int
}

// LoggedAttempt is an attempt as stored in the ledger.
type LoggedAttempt struct {
	Attempt
	EventType string
}

// attemptSize is the approximate size of an attempt.
const attemptSize = `octet_length(a.response_body) + octet_length(a.request_headers::text) + octet_length(a.response_headers::text)
	+ octet_length(a.error) + 256`

// attemptColumns are read by readAttempt.
const attemptColumns = `a.position, a.run, a.number, a.cause, a.started_at, (extract(epoch FROM a.duration) * 1000000)::bigint,
	coalesce(a.status, 0), a.error_class, a.error, a.request_headers, a.response_headers, a.response_body, a.next_step`

func readAttempt(scan func(...any) error, more ...any) (a LoggedAttempt, err error) {
	var (
		micros            int64
		request, response []byte
	)
	dest := append([]any{
		&a.Position, &a.Run, &a.Number, &a.Cause, &a.StartedAt, &micros, &a.HTTPStatus, &a.ErrorClass, &a.Error,
		&request, &response, &a.ResponseBody, &a.Status,
	}, more...)
	if err := scan(dest...); err != nil {
		return LoggedAttempt{}, fmt.Errorf("read attempt: %w", err)
	}
	a.Duration = time.Duration(micros) * time.Microsecond
	a.RequestHeaders, a.ResponseHeaders = postgres.DecodeStringMap(request), postgres.DecodeStringMap(response)
	return a, nil
}

// Attempts returns one page of a subscription's attempts, the latest first.
// before is the last one of the previous page, or nil; failed leaves out those
// that were answered with 2xx.
func Attempts(ctx context.Context, q postgres.Queryer, id subscription.ID, failed bool, before *AttemptKey, limit int) (postgres.Page[LoggedAttempt], error) {
	key := AttemptKey{StartedAt: time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)}
	if before != nil {
		key = *before
	}
	return postgres.ReadPage(ctx, q, "list attempts", `
		SELECT `+attemptColumns+`,
		       coalesce((SELECT o.id FROM posthorn.outbox o WHERE o.position = a.position), ''),
		       coalesce((SELECT o.type FROM posthorn.outbox o WHERE o.position = a.position), ''), `+attemptSize+` AS page_size
		FROM posthorn.attempts a
		WHERE a.subscription_id = $1 AND a.started_at <= $2 AND (a.started_at, a.position, a.number) < ($2, $3, $4)
		  AND (NOT $5 OR a.error_class <> 'ok')`,
		"started_at DESC, position DESC, number DESC", limit, []any{id.UUID(), key.StartedAt, key.Position, key.Number, failed},
		func(scan func(...any) error) (LoggedAttempt, error) {
			var eventID, eventType string
			a, err := readAttempt(scan, &eventID, &eventType)
			a.Subscription, a.EventID, a.EventType = id, eventID, eventType
			return a, err
		})
}
