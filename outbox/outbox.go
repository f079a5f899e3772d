// Package outbox appends events to Posthorn's log in the caller's own
// transaction, so that a change and its event are committed together or not at
// all.
//
//	tx, err := db.BeginTx(ctx, nil)
//	...
//	_, err = tx.ExecContext(ctx, "UPDATE orders SET paid = true WHERE id = $1", id)
//	_, err = outbox.Append(ctx, tx, events.Event{Type: "ORDER_PAID", Subject: "order/7", Data: data})
//	err = tx.Commit()
//
// Append promises that a committed event is forwarded exactly after those with
// a lower position, whatever other transactions are open in the database; that
// an id chosen by the caller appends once; and that nothing is sent anywhere
// before the commit. It fails, and leaves the transaction for the caller to
// roll back, if an event is invalid, an id is taken by another event, or
// Postgres refuses. It works with any database/sql driver for Postgres.
//
// From other languages: SELECT posthorn.append_event(type, subject, data).
package outbox

import (
	"context"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"posthorn/events"
)

// ErrConflict is returned by Append when an id chosen by the caller is taken
// by an event with other content.
var ErrConflict = errors.New("event id is taken by an event with other content")

// Tx is the part of a transaction that Append needs; *sql.Tx and *sql.Conn implement it.
type Tx interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// Channel is the channel of Postgres on which Wake notifies.
const Channel = "posthorn_appended"

// Wake notifies a relay that is waiting that something was appended. Call it after the commit, with
// the pool and not with the transaction: commits that notify wait for one another. Without it the
// relay finds the event when it looks next, which takes up to 100 ms. Nothing is lost where it
// fails.
func Wake(ctx context.Context, db Tx) error {
	// It need not survive a crash, and so does not wait for the disk.
	rows, err := db.QueryContext(ctx, `SELECT set_config('synchronous_commit', 'off', true), pg_notify($1, '')`, Channel)
	if err != nil {
		return fmt.Errorf("wake relay: %w", err)
	}
	defer func() { _ = rows.Close() }() // there is nothing in it
	if err := rows.Err(); err != nil {
		return fmt.Errorf("wake relay: %w", err)
	}
	return nil
}

// Outcome is the outcome of appending one event.
type Outcome string

// The outcomes of Append.
const (
	Appended Outcome = "appended" // it is new in the log
	Existing Outcome = "existing" // it was there already, with the same content
	Conflict Outcome = "conflict" // its id is taken by an event with other content
)

// Result is an event as it is in the log, with the outcome of appending it.
type Result struct {
	events.Event
	Outcome Outcome
}

// Append appends the events in the given order and returns them with their id, position and times.
// An event without an id gets one; an event with an id that is in the log already, with the same
// content, is not appended again and the one in the log is returned. An event with a source is
// identified by source and id; if its id cannot be a webhook-id, or is taken by an event of another
// source, it comes back with another id and the SourceID set. If the content differs, the error is
// ErrConflict, and the caller must not commit anything of this call.
func Append(ctx context.Context, tx Tx, batch ...events.Event) ([]events.Event, error) {
	results, err := AppendEach(ctx, tx, batch...)
	if err != nil {
		return nil, err
	}
	appended := make([]events.Event, len(results))
	for i, r := range results {
		if r.Outcome == Conflict {
			return nil, fmt.Errorf("append event %q: %w", r.ID, ErrConflict)
		}
		appended[i] = r.Event
	}
	return appended, nil
}

// AppendEach is Append for events that do not belong together: one whose id
// is taken is not appended and has the outcome Conflict, the others are.
func AppendEach(ctx context.Context, tx Tx, batch ...events.Event) (results []Result, err error) {
	if len(batch) == 0 {
		return nil, nil
	}
	args, results, err := encode(batch)
	if err != nil {
		return nil, err
	}
	rows, err := tx.QueryContext(ctx, `
		SELECT ordinal, position, id, occurred, recorded, outcome
		FROM posthorn.append_events($1::text[], $2::boolean[], $3::text[], $4::text[], $5::text[],
		                            $6::text[], $7::text[], $8::timestamptz[], $9::text[], $10::bytea[], true)`, args...)
	if err != nil {
		return nil, fmt.Errorf("append events: %w", err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	seen := 0
	for rows.Next() {
		var (
			ordinal            int
			position           sql.NullInt64
			id, outcome        string
			occurred, recorded sql.NullTime
		)
		if err := rows.Scan(&ordinal, &position, &id, &occurred, &recorded, &outcome); err != nil {
			return nil, fmt.Errorf("read appended event: %w", err)
		}
		r := &results[ordinal-1]
		if r.Source != "" && r.ID != "" && r.SourceID == "" && r.ID != id {
			r.SourceID = r.ID
		}
		r.Position, r.ID, r.Outcome = position.Int64, id, Outcome(outcome)
		r.OccurredAt, r.RecordedAt = occurred.Time, recorded.Time
		seen++
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("append events: %w", err)
	}
	if seen != len(batch) {
		return nil, fmt.Errorf("append events: %d of %d came back", seen, len(batch))
	}
	return results, nil
}

// encode checks the batch and encodes it as the array literals that
// append_events takes: the one form that every driver passes on unchanged. A
// field that no event of the batch has is a single NULL.
func encode(batch []events.Event) ([]any, []Result, error) {
	results := make([]Result, len(batch))
	var ids, keyed, accounts, types, subjects, data, metadata, occurred, attributes, bytes array
	for i, e := range batch {
		if err := e.Validate(); err != nil {
			return nil, nil, fmt.Errorf("event %d: %w", i, err)
		}
		e.Account = e.Owner()
		if len(e.Data) == 0 && e.JSON() {
			e.Data = []byte("null")
		}
		meta, err := object(e.Metadata)
		if err != nil {
			return nil, nil, fmt.Errorf("event %d: encode metadata: %w", i, err)
		}
		if e.ID == "" {
			ids.raw("NULL") // the function generates one
			keyed.raw("f")
		} else {
			ids.text(e.ID)
			keyed.raw("t")
		}
		accounts.text(e.Account)
		types.text(e.Type)
		subjects.text(e.Subject)
		if e.JSON() {
			data.text(string(e.Data))
		} else {
			bytes.set(i, `\x`+hex.EncodeToString(e.Data))
			data.raw("NULL")
		}
		metadata.text(meta)
		if e.OccurredAt.IsZero() {
			occurred.raw("NULL")
		} else {
			occurred.text(e.OccurredAt.UTC().Format(time.RFC3339Nano))
		}
		if all := e.Attributes(); all != nil {
			text, err := object(all)
			if err != nil {
				return nil, nil, fmt.Errorf("event %d: encode attributes: %w", i, err)
			}
			attributes.set(i, text)
		}
		results[i].Event = e
	}
	return []any{
		ids.String(), keyed.String(), accounts.String(), types.String(), subjects.String(), data.String(),
		metadata.String(), occurred.String(), attributes.orNull(), bytes.orNull(),
	}, results, nil
}

// object is the JSON object of a map.
func object[V any](m map[string]V) (string, error) {
	if len(m) == 0 {
		return "{}", nil
	}
	b, err := json.Marshal(m)
	return string(b), err
}

// array builds the text form of a one-dimensional Postgres array (PostgreSQL
// manual, 8.15.2, "Array Value Input").
type array struct {
	b strings.Builder
	n int // elements
}

// set appends the element at an index, with NULL for the missing elements
// before it.
func (a *array) set(place int, element string) {
	for a.n < place {
		a.raw("NULL")
	}
	a.text(element)
}

func (a *array) raw(element string) {
	a.n++
	if a.b.Len() == 0 {
		a.b.WriteByte('{')
	} else {
		a.b.WriteByte(',')
	}
	a.b.WriteString(element)
}

func (a *array) text(element string) {
	a.raw(`"`)
	for {
		i := strings.IndexAny(element, `"\`)
		if i < 0 {
			break
		}
		a.b.WriteString(element[:i])
		a.b.WriteByte('\\')
		a.b.WriteByte(element[i])
		element = element[i+1:]
	}
	a.b.WriteString(element)
	a.b.WriteByte('"')
}

func (a *array) String() string { return a.b.String() + "}" }

func (a *array) orNull() any {
	if a.n == 0 {
		return nil
	}
	return a.String()
}
