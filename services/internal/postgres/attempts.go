package postgres

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"posthorn/services/internal/subscription"
)

// AttemptKey is the place of an attempt in the list of its subscription's.
type AttemptKey struct {
	StartedAt time.Time
	Position  int64
	Number    int
}

// LoggedAttempt is an attempt as the ledger keeps it.
type LoggedAttempt struct {
	Attempt
	EventType string
}

// Attempts is one page of a subscription's attempts, the latest first. before
// is the last one of the page before, or nil; failed leaves out those that
// were answered with 2xx.
func Attempts(ctx context.Context, q Queryer, id subscription.ID, failed bool, before *AttemptKey, limit int) (list []LoggedAttempt, err error) {
	key := AttemptKey{StartedAt: time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)}
	if before != nil {
		key = *before
	}
	rows, err := q.QueryContext(ctx, `
		SELECT a.position, a.run, a.number, a.cause, a.started_at, (extract(epoch FROM a.duration) * 1000000)::bigint, a.status,
		       a.error_class, a.error, a.request_headers, a.response_headers, a.response_body, a.next_step,
		       coalesce(o.id, ''), coalesce(o.type, '')
		FROM (
			SELECT * FROM posthorn.attempts
			WHERE subscription_id = $1 AND started_at <= $2 AND (started_at, position, number) < ($2, $3, $4)
			  AND (NOT $5 OR error_class <> 'ok')
			ORDER BY started_at DESC, position DESC, number DESC LIMIT $6
		) a LEFT JOIN posthorn.outbox o ON o.position = a.position
		ORDER BY a.started_at DESC, a.position DESC, a.number DESC`,
		id.UUID(), key.StartedAt, key.Position, key.Number, failed, limit)
	if err != nil {
		return nil, Translate(fmt.Errorf("list attempts: %w", err))
	}
	defer func() { err = Translate(errors.Join(err, rows.Close())) }()
	for rows.Next() {
		var (
			a                 LoggedAttempt
			micros            int64
			status            sql.NullInt64
			request, response []byte
		)
		if err := rows.Scan(&a.Position, &a.Run, &a.Number, &a.Cause, &a.StartedAt, &micros, &status, &a.ErrorClass, &a.Error,
			&request, &response, &a.ResponseBody, &a.Status, &a.EventID, &a.EventType); err != nil {
			return nil, fmt.Errorf("read attempt: %w", err)
		}
		a.Subscription, a.Duration, a.HTTPStatus = id, time.Duration(micros)*time.Microsecond, int(status.Int64)
		a.RequestHeaders, a.ResponseHeaders = decodeMetadata(request), decodeMetadata(response)
		list = append(list, a)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("list attempts: %w", err)
	}
	return list, nil
}
