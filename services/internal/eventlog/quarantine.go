package eventlog

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"posthorn/services/internal/postgres"
)

// ErrUnfit is wrapped by Record.Check and by ReleaseQuarantined for a record
// that cannot be forwarded; the text after it says why.
var ErrUnfit = errors.New("record cannot be forwarded")

// QuarantineStatus is the status of a record that was set aside.
type QuarantineStatus string

// The statuses of a quarantined record. The first two wait for an operator.
const (
	Held     QuarantineStatus = "held"     // it was not forwarded
	Rerouted QuarantineStatus = "rerouted" // it went to each queue directly, since the exchange did not confirm it
	Released QuarantineStatus = "released" // it was retried
	Dropped  QuarantineStatus = "dropped"  // an operator gave it up
)

// Open reports whether the record still waits for an operator.
func (s QuarantineStatus) Open() bool { return s == Held || s == Rerouted }

// Quarantined is a record that the relay has passed without forwarding it
// normally.
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

// maxReason limits a stored reason, in bytes.
const maxReason = 500

// NewQuarantined returns the record set aside for a reason.
func NewQuarantined(r *Record, status QuarantineStatus, why error) Quarantined {
	reason := strings.ToValidUTF8(strings.ReplaceAll(why.Error(), "\x00", ""), "?")
	if len(reason) > maxReason {
		reason = strings.ToValidUTF8(reason[:maxReason], "") + "..."
	}
	return Quarantined{Position: r.Position, Kind: r.Kind, Account: r.Account, EventID: r.ID, Reason: reason, Status: status}
}

// SetAside enters records in the quarantine. It does not change those already
// in it.
func SetAside(ctx context.Context, q postgres.Queryer, list ...Quarantined) error {
	for _, r := range list {
		if _, err := q.ExecContext(ctx, `
			INSERT INTO posthorn.quarantine (position, kind, account, event_id, reason, status)
			VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING`,
			r.Position, string(r.Kind), r.Account, r.EventID, r.Reason, string(r.Status)); err != nil {
			return postgres.Translate(fmt.Errorf("set record %d aside: %w", r.Position, err))
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

// ListQuarantined returns one page of the records that were set aside, in the
// order of the log, above a position; with all also the released and dropped
// ones.
func ListQuarantined(ctx context.Context, q postgres.Queryer, after int64, all bool, limit int) (list []Quarantined, err error) {
	return postgres.Collect(ctx, q, "list quarantine", scanQuarantined, `
		SELECT `+quarantineColumns+` FROM posthorn.quarantine
		WHERE position > $1 AND ($2 OR status IN ('held', 'rerouted')) ORDER BY position LIMIT $3`, after, all, limit)
}

// QuarantinedAt returns the record that was set aside at a position.
func QuarantinedAt(ctx context.Context, q postgres.Queryer, position int64) (Quarantined, error) {
	r, err := scanQuarantined(q.QueryRowContext(ctx, `
		SELECT `+quarantineColumns+` FROM posthorn.quarantine WHERE position = $1`, position).Scan)
	return r, postgres.Translate(err)
}

// CountQuarantined counts the records that wait for an operator.
func CountQuarantined(ctx context.Context, q postgres.Queryer) (n int64, err error) {
	if err := q.QueryRowContext(ctx, `
		SELECT count(*) FROM posthorn.quarantine WHERE status IN ('held', 'rerouted')`).Scan(&n); err != nil {
		return 0, postgres.Translate(fmt.Errorf("count quarantine: %w", err))
	}
	return n, nil
}

// DropQuarantined gives up a held record: no subscription is owed it. It
// returns ErrState if the record is not held.
func DropQuarantined(ctx context.Context, db *sql.DB, position int64) (Quarantined, error) {
	return MoveQuarantined(ctx, db, position, Held, Dropped)
}

// MoveQuarantined changes the status of a record in quarantine. It returns
// ErrState if the record's status is not from.
func MoveQuarantined(ctx context.Context, q postgres.Queryer, position int64, from, to QuarantineStatus) (Quarantined, error) {
	r, err := scanQuarantined(q.QueryRowContext(ctx, `
		UPDATE posthorn.quarantine SET status = $3, updated_at = clock_timestamp()
		WHERE position = $1 AND status = $2 RETURNING `+quarantineColumns, position, string(from), string(to)).Scan)
	if !errors.Is(err, sql.ErrNoRows) {
		return r, postgres.Translate(err)
	}
	if r, err = QuarantinedAt(ctx, q, position); err != nil {
		return r, err
	}
	return r, fmt.Errorf("%w: record %d is %s", postgres.ErrState, position, r.Status)
}
