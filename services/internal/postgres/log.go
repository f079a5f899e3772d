package postgres

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"posthorn/events"
)

// awaitMargin is how much longer than it should take AwaitHorizon is given.
const awaitMargin = 10 * time.Second

// Kind tells the records of the log apart.
type Kind string

// The kinds of records.
const (
	KindEvent        Kind = "event"        // something happened; goes to whoever subscribes to its type
	KindSubscription Kind = "subscription" // a subscription was created, changed or deleted
	KindTest         Kind = "test"         // an event for one subscription alone, named in its metadata
)

// Record is an entry of the log.
type Record struct {
	Kind Kind
	events.Event
	// Unreadable says which field could not be read as it is, and why; the
	// field has the nearest value that can be shown. Such a record is listed
	// like any other, and is not forwarded.
	Unreadable string
}

// Horizon is the highest position up to which the log is settled: what a
// later statement does not see at or below it will never be there.
func Horizon(ctx context.Context, q Queryer) (int64, error) {
	var horizon int64
	if err := q.QueryRowContext(ctx, `SELECT posthorn.horizon()`).Scan(&horizon); err != nil {
		return 0, Translate(fmt.Errorf("read horizon: %w", err))
	}
	return horizon, nil
}

// AwaitHorizon waits for the horizon to be beyond a position and returns it, or
// returns the position after patience. The server looks every step and the
// waiting costs next to nothing. The connection is taken up meanwhile.
func AwaitHorizon(ctx context.Context, q Queryer, beyond int64, step, patience time.Duration) (int64, error) {
	// A line that is dead must not be waited for: nothing else ends this call.
	ctx, cancel := context.WithTimeout(ctx, patience+awaitMargin)
	defer cancel()
	var horizon int64
	err := q.QueryRowContext(ctx, `SELECT posthorn.await_horizon($1, $2::interval, $3::interval)`,
		beyond, interval(step), interval(patience)).Scan(&horizon)
	if err != nil {
		if errors.Is(err, context.DeadlineExceeded) {
			err = errors.Join(ErrUnavailable, err)
		}
		return 0, Translate(fmt.Errorf("wait for the log: %w", err))
	}
	return horizon, nil
}

// Window is a stretch of the log: all records with a position above the one
// it was read after, up to and including Through.
type Window struct {
	Records []Record
	Through int64
}

// ReadWindow reads the log above after, up to the horizon, in position order:
// at most positions positions and about maxBytes bytes of data, but at least
// one record where there is one. The horizon must have been read before, in
// another statement.
//
// The range of positions bounds the work, not a LIMIT: whatever plan the
// statistics lead to, the cost does not depend on the backlog.
func ReadWindow(ctx context.Context, q Queryer, after, horizon int64, positions, maxBytes int) (w Window, err error) {
	through := min(horizon, after+int64(positions))
	if through <= after {
		return Window{Through: after}, nil
	}
	rows, err := q.QueryContext(ctx, readWindow, after, through)
	if err != nil {
		return Window{}, Translate(fmt.Errorf("read log: %w", err))
	}
	defer func() { err = Translate(errors.Join(err, rows.Close())) }()
	bytes := 0
	for rows.Next() {
		r, err := scanRecord(rows)
		if err != nil {
			return Window{}, err
		}
		if bytes += len(r.Data); bytes > maxBytes && len(w.Records) > 0 {
			w.Through = w.Records[len(w.Records)-1].Position
			return w, nil
		}
		w.Records = append(w.Records, r)
	}
	if err := rows.Err(); err != nil {
		return Window{}, fmt.Errorf("read log: %w", err)
	}
	w.Through = through
	return w, nil
}

const (
	recordColumns = `position, kind, id, account, type, subject, data, metadata, attributes, occurred_at, recorded_at`

	readWindow = `
		SELECT ` + recordColumns + `
		FROM posthorn.outbox WHERE position > $1 AND position <= $2 ORDER BY position`
)

// queryRecords reads the records that a query of recordColumns selects; what
// says for an error what was being done.
func queryRecords(ctx context.Context, q Queryer, what, query string, args ...any) (records []Record, err error) {
	rows, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, Translate(fmt.Errorf("%s: %w", what, err))
	}
	defer func() { err = Translate(errors.Join(err, rows.Close())) }()
	for rows.Next() {
		r, err := scanRecord(rows)
		if err != nil {
			return nil, err
		}
		records = append(records, r)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	return records, nil
}

func scanRecord(rows *sql.Rows) (Record, error) {
	var f RecordFields
	if err := rows.Scan(f.Columns()...); err != nil {
		return Record{}, fmt.Errorf("read record: %w", err)
	}
	return f.Read(), nil
}

// RecordFields are the recordColumns of a row. They can hold whatever Postgres
// can, so that no row keeps those behind it from being read.
type RecordFields struct {
	Record
	metadata, attributes []byte
	occurred, recorded   instant
}

// Columns are the destinations of the recordColumns, and of further ones.
func (f *RecordFields) Columns(further ...any) []any {
	return append([]any{
		&f.Position, &f.Kind, &f.ID, &f.Account, &f.Type, &f.Subject, &f.Data, &f.metadata, &f.attributes, &f.occurred, &f.recorded,
	}, further...)
}

func (f *RecordFields) Read() Record {
	f.Metadata = decodeMetadata(f.metadata)
	f.OccurredAt, f.RecordedAt = f.occurred.Time, f.recorded.Time
	if string(f.attributes) != "{}" {
		if err := f.ParseAttributes(f.attributes); err != nil {
			f.Unreadable = strings.TrimPrefix(err.Error(), events.ErrInvalid.Error()+": ")
		}
	}
	switch {
	case f.occurred.problem != "":
		f.Unreadable = "occurred_at " + f.occurred.problem
	case f.recorded.problem != "":
		f.Unreadable = "recorded_at " + f.recorded.problem
	}
	return f.Record
}

// decodeMetadata is total: a producer that wrote something other than text
// must not stop the log, so that value is kept as its JSON.
func decodeMetadata(b []byte) map[string]string {
	if len(b) == 0 || string(b) == "{}" {
		return nil
	}
	var values map[string]json.RawMessage
	if json.Unmarshal(b, &values) != nil {
		return nil
	}
	metadata := make(map[string]string, len(values))
	for k, v := range values {
		var text string
		if json.Unmarshal(v, &text) != nil {
			text = string(v)
		}
		metadata[k] = text
	}
	return metadata
}
