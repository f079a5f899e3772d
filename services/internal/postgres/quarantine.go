package postgres

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"posthorn/events"
	"posthorn/services/internal/subscription"
)

// ErrUnfit is wrapped by Record.Check and by ReleaseQuarantined for a record
// that cannot be forwarded; the text after it says why.
var ErrUnfit = errors.New("record cannot be forwarded")

// Check returns ErrUnfit where the record cannot be forwarded: it cannot be
// read whole, is of an unknown kind, or has a field that no door admits today
// or ever did. The log may hold such records, since whoever owns the tables
// can write anything, and must go on behind them.
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
	// They are bounded for new events only too, and any JSON was admitted before.
	rest.Data, rest.Metadata = nil, nil
	for words := range slices.Chunk(strings.Split(r.Type, "."), events.MaxWords) {
		rest.Type = strings.Join(words, ".")
		if err := rest.Validate(); err != nil {
			return fmt.Errorf("%w: %s", ErrUnfit, strings.TrimPrefix(err.Error(), events.ErrInvalid.Error()+": "))
		}
	}
	return nil
}

// subscription is the change that a record of that kind tells of, which must
// be of the subscription and account that the record is filed under.
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

// Change is the change of a subscription that the record tells of. Its error
// is an ErrUnfit.
func (r *Record) Change() (subscription.Record, error) {
	if r.Unreadable != "" {
		return subscription.Record{}, fmt.Errorf("%w: %s", ErrUnfit, r.Unreadable)
	}
	return r.subscription()
}

// QuarantineStatus is what became of a record that was set aside.
type QuarantineStatus string

// The statuses of a quarantined record. The first two wait for an operator.
const (
	Held     QuarantineStatus = "held"     // it was forwarded to nobody
	Rerouted QuarantineStatus = "rerouted" // it went to each queue by itself, since the exchange did not take it
	Released QuarantineStatus = "released" // it was taken up again
	Dropped  QuarantineStatus = "dropped"  // it was given up
)

// Open reports whether an operator has yet to look at it.
func (s QuarantineStatus) Open() bool { return s == Held || s == Rerouted }

// Quarantined is a record that the relay has passed without forwarding it as
// it should.
type Quarantined struct {
	Position   int64
	Kind       Kind
	Account    string
	EventID    string
	Reason     string
	Status     QuarantineStatus
	SetAsideAt time.Time
	UpdatedAt  time.Time
}

// maxReason is how much of a reason is kept, in bytes.
const maxReason = 500

// NewQuarantined is the record set aside for a reason.
func NewQuarantined(r *Record, status QuarantineStatus, why error) Quarantined {
	reason := strings.ToValidUTF8(strings.ReplaceAll(why.Error(), "\x00", ""), "?")
	if len(reason) > maxReason {
		reason = strings.ToValidUTF8(reason[:maxReason], "") + "..."
	}
	return Quarantined{Position: r.Position, Kind: r.Kind, Account: r.Account, EventID: r.ID, Reason: reason, Status: status}
}

// SetAside enters records in the quarantine. Those that are in it already stay
// as they are.
func SetAside(ctx context.Context, q Queryer, list ...Quarantined) error {
	for _, r := range list {
		if _, err := q.ExecContext(ctx, `
			INSERT INTO posthorn.quarantine (position, kind, account, event_id, reason, status)
			VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING`,
			r.Position, string(r.Kind), r.Account, r.EventID, r.Reason, string(r.Status)); err != nil {
			return Translate(fmt.Errorf("set record %d aside: %w", r.Position, err))
		}
	}
	return nil
}

const quarantineColumns = `position, kind, account, event_id, reason, status, set_aside_at, updated_at`

func scanQuarantined(scan func(...any) error) (r Quarantined, err error) {
	err = scan(&r.Position, &r.Kind, &r.Account, &r.EventID, &r.Reason, &r.Status, &r.SetAsideAt, &r.UpdatedAt)
	if err != nil {
		return Quarantined{}, fmt.Errorf("read quarantined record: %w", err)
	}
	return r, nil
}

// ListQuarantined is one page of the records that were set aside, in the order
// of the log, above a position. all lists also those that are dealt with.
func ListQuarantined(ctx context.Context, q Queryer, after int64, all bool, limit int) (list []Quarantined, err error) {
	rows, err := q.QueryContext(ctx, `
		SELECT `+quarantineColumns+` FROM posthorn.quarantine
		WHERE position > $1 AND ($2 OR status IN ('held', 'rerouted')) ORDER BY position LIMIT $3`, after, all, limit)
	if err != nil {
		return nil, Translate(fmt.Errorf("list quarantine: %w", err))
	}
	defer func() { err = Translate(errors.Join(err, rows.Close())) }()
	for rows.Next() {
		r, err := scanQuarantined(rows.Scan)
		if err != nil {
			return nil, err
		}
		list = append(list, r)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("list quarantine: %w", err)
	}
	return list, nil
}

// QuarantinedAt is the record that was set aside at a position.
func QuarantinedAt(ctx context.Context, q Queryer, position int64) (Quarantined, error) {
	r, err := scanQuarantined(q.QueryRowContext(ctx, `
		SELECT `+quarantineColumns+` FROM posthorn.quarantine WHERE position = $1`, position).Scan)
	return r, Translate(err)
}

// CountQuarantined counts the records that an operator has yet to look at.
func CountQuarantined(ctx context.Context, q Queryer) (n int64, err error) {
	if err := q.QueryRowContext(ctx, `
		SELECT count(*) FROM posthorn.quarantine WHERE status IN ('held', 'rerouted')`).Scan(&n); err != nil {
		return 0, Translate(fmt.Errorf("count quarantine: %w", err))
	}
	return n, nil
}

// ReleaseQuarantined takes a record up again that was set aside. An event that
// was held is owed, from now on, to the subscriptions that were live at its
// position; a change of a subscription is told of anew, as the subscription is
// now. One that was rerouted has its deliveries and only leaves the list. It
// returns ErrUnfit where the record still cannot be forwarded, and ErrState
// where it is not set aside.
func ReleaseQuarantined(ctx context.Context, db *sql.DB, position int64) (Quarantined, error) {
	held, err := QuarantinedAt(ctx, db, position)
	if err != nil {
		return held, err
	}
	if held.Status == Released {
		return held, fmt.Errorf("%w: record %d was released already", ErrState, position)
	}
	if held.Status != Rerouted {
		record, err := RecordAt(ctx, db, position)
		if err == nil {
			err = record.Check()
		}
		if err != nil {
			return held, err
		}
		if record.Kind == KindSubscription {
			_, err := UpdateSubscription(ctx, db, record.Account, subscription.ID(record.Subject),
				func(*subscription.Subscription) error { return nil })
			if err != nil {
				return held, fmt.Errorf("tell of %s anew: %w", record.Subject, err)
			}
		}
	}
	released, err := moveQuarantined(ctx, db, position, held.Status, Released)
	if err != nil || held.Status == Rerouted || held.Kind == KindSubscription {
		return released, err
	}
	// Crash window: the record counts as forwarded and its deliveries are not
	// in the ledger. An audit finds them lost, and repairs them.
	_, err = Audit(ctx, db, AuditOptions{After: position - 1, Through: position, Repair: true})
	return released, err
}

// DropQuarantined gives a held record up: nobody is owed it. It returns
// ErrState where the record is not held.
func DropQuarantined(ctx context.Context, db *sql.DB, position int64) (Quarantined, error) {
	return moveQuarantined(ctx, db, position, Held, Dropped)
}

func moveQuarantined(ctx context.Context, q Queryer, position int64, from, to QuarantineStatus) (Quarantined, error) {
	r, err := scanQuarantined(q.QueryRowContext(ctx, `
		UPDATE posthorn.quarantine SET status = $3, updated_at = clock_timestamp()
		WHERE position = $1 AND status = $2 RETURNING `+quarantineColumns, position, string(from), string(to)).Scan)
	if !errors.Is(err, sql.ErrNoRows) {
		return r, Translate(err)
	}
	if r, err = QuarantinedAt(ctx, q, position); err != nil {
		return r, err
	}
	return r, fmt.Errorf("%w: record %d is %s", ErrState, position, r.Status)
}
