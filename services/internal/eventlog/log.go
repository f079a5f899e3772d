package eventlog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"posthorn/events"
	"posthorn/services/internal/postgres"
	"posthorn/services/internal/subscription"
)

// At returns the record at a position.
func At(ctx context.Context, q postgres.Queryer, position int64) (r Record, err error) {
	w, err := ReadWindow(ctx, q, position-1, position, 1, 1)
	if err != nil {
		return Record{}, err
	}
	if len(w.Records) == 0 {
		return Record{}, postgres.ErrNotFound
	}
	return w.Records[0], nil
}

// awaitMargin is how long AwaitHorizon may exceed its patience.
const awaitMargin = 10 * time.Second

// Kind is the kind of a record of the log.
type Kind string

// The kinds of records.
const (
	KindEvent        Kind = "event"        // a fact; goes to the subscriptions that match its type
	KindSubscription Kind = "subscription" // a subscription was created, changed or deleted
	KindTest         Kind = "test"         // an event for one subscription only, named in its metadata
)

// Record is an entry of the log.
type Record struct {
	Kind Kind
	events.Event
	// Unreadable names a field that could not be read exactly, and the reason;
	// the field has the nearest value that can be shown. Such a record is
	// listed like any other, and is not forwarded.
	Unreadable string
}

// Horizon is the highest position up to which the log is settled: a record at
// or below it that a later statement does not see will never exist.
func Horizon(ctx context.Context, q postgres.Queryer) (int64, error) {
	var horizon int64
	if err := q.QueryRowContext(ctx, `SELECT posthorn.horizon()`).Scan(&horizon); err != nil {
		return 0, postgres.Translate(fmt.Errorf("read horizon: %w", err))
	}
	return horizon, nil
}

// AwaitHorizon waits until the horizon is beyond a position and returns it, or
// returns the position after patience. The server polls every step, and waiting
// costs almost nothing. It occupies the connection meanwhile.
func AwaitHorizon(ctx context.Context, q postgres.Queryer, beyond int64, step, patience time.Duration) (int64, error) {
	// Do not wait for a dead connection: nothing else ends this call.
	ctx, cancel := context.WithTimeout(ctx, patience+awaitMargin)
	defer cancel()
	var horizon int64
	err := q.QueryRowContext(ctx, `SELECT posthorn.await_horizon($1, $2::interval, $3::interval)`,
		beyond, postgres.Interval(step), postgres.Interval(patience)).Scan(&horizon)
	if err != nil {
		if errors.Is(err, context.DeadlineExceeded) {
			err = errors.Join(postgres.ErrUnavailable, err)
		}
		return 0, postgres.Translate(fmt.Errorf("wait for the log: %w", err))
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
// one record if there is one. The caller must have read the horizon before, in
// another statement.
//
// The range of positions bounds the work, not a LIMIT: whatever plan the
// statistics lead to, the cost does not depend on the backlog.
func ReadWindow(ctx context.Context, q postgres.Queryer, after, horizon int64, positions, maxBytes int) (w Window, err error) {
	through := min(horizon, after+int64(positions))
	if through <= after {
		return Window{Through: after}, nil
	}
	rows, err := q.QueryContext(ctx, readWindow, after, through)
	if err != nil {
		return Window{}, postgres.Translate(fmt.Errorf("read log: %w", err))
	}
	defer func() { err = postgres.Translate(errors.Join(err, rows.Close())) }()
	bytes := 0
	for rows.Next() {
		r, err := scanRecord(rows.Scan)
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
// describes the operation in errors.
func queryRecords(ctx context.Context, q postgres.Queryer, what, query string, args ...any) ([]Record, error) {
	return postgres.Collect(ctx, q, what, scanRecord, query, args...)
}

func scanRecord(scan func(...any) error) (Record, error) {
	var f RecordFields
	if err := scan(f.Columns()...); err != nil {
		return Record{}, fmt.Errorf("read record: %w", err)
	}
	return f.Read(), nil
}

// RecordFields are the recordColumns of a row. They can hold any value of
// Postgres, so that no row prevents reading later ones.
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
	f.Metadata = postgres.DecodeStringMap(f.metadata)
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

// Check returns ErrUnfit if the record cannot be forwarded: it cannot be read
// completely, is of an unknown kind, or has a field that no interface accepts
// or ever accepted. The log may hold such records, since the owner of the
// tables can write anything, and must continue after them.
func (r *Record) Check() error {
	switch {
	case r.Unreadable != "":
		return fmt.Errorf("%w: %s", ErrUnfit, r.Unreadable)
	case r.Kind == KindSubscription:
		_, err := r.subscription()
		return err
	case r.Kind != KindEvent && r.Kind != KindTest:
		return fmt.Errorf("%w: kind %q is unknown", ErrUnfit, r.Kind)
	case r.ID == "":
		return fmt.Errorf("%w: id: empty", ErrUnfit)
	case r.Account == "":
		return fmt.Errorf("%w: account: empty", ErrUnfit)
	case len(r.Data) > events.MaxDataBytes:
		return fmt.Errorf("%w: data: longer than %d bytes", ErrUnfit, events.MaxDataBytes)
	case len(r.Data) > 0 && r.JSON() && !(utf8.Valid(r.Data) && json.Valid(r.Data)):
		return fmt.Errorf("%w: data: not a JSON value in UTF-8", ErrUnfit)
	}
	// The number of words in a type is bounded for new events only.
	if len(r.Type) > events.MaxTypeBytes {
		return fmt.Errorf("%w: type: longer than %d bytes", ErrUnfit, events.MaxTypeBytes)
	}
	rest := r.Event
	// Data and metadata are also bounded only for new events, and any JSON was accepted before.
	rest.Data, rest.Metadata = nil, nil
	for words := range slices.Chunk(strings.Split(r.Type, "."), events.MaxWords) {
		rest.Type = strings.Join(words, ".")
		if err := rest.Validate(); err != nil {
			return fmt.Errorf("%w: %s", ErrUnfit, strings.TrimPrefix(err.Error(), events.ErrInvalid.Error()+": "))
		}
	}
	return nil
}

// subscription decodes the change in a record of that kind, which must be of
// the subscription and account that the record is filed under.
func (r *Record) subscription() (subscription.Record, error) {
	change, err := subscription.ParseRecord(r.Data)
	switch {
	case err != nil:
		return change, fmt.Errorf("%w: %w", ErrUnfit, err)
	case string(change.ID) != r.Subject:
		return change, fmt.Errorf("%w: it is filed under the subject %q, not %q", ErrUnfit, r.Subject, change.ID)
	case change.Account != r.Account:
		return change, fmt.Errorf("%w: it is filed under the account %q, not %q", ErrUnfit, r.Account, change.Account)
	}
	return change, nil
}

// Change returns the change of a subscription in the record. Its error is an
// ErrUnfit.
func (r *Record) Change() (subscription.Record, error) {
	if r.Unreadable != "" {
		return subscription.Record{}, fmt.Errorf("%w: %s", ErrUnfit, r.Unreadable)
	}
	return r.subscription()
}
