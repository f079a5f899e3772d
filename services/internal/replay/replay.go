package replay

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/lib/pq"

	"posthorn/events"
	"posthorn/services/internal/eventlog"
	"posthorn/services/internal/id"
	"posthorn/services/internal/ledger"
	"posthorn/services/internal/matching"
	"posthorn/services/internal/postgres"
	"posthorn/services/internal/subscription"
)

func (r Replay) selectedArgs(types []string) []any {
	var own any
	if !r.Unfiltered {
		own = pq.Array(matching.PatternExpressions(types))
	}
	// Test events were for one subscription only: they are redriven, but not
	// replayed.
	return []any{
		r.Account, r.Cause == ledger.CauseRedrive, own, postgres.TextsOrNull(matching.PatternExpressions(matching.PatternTexts(r.EventTypes))), postgres.TextsOrNull(r.Subjects),
		postgres.PositionsOrNull(r.Positions), r.fromTime, r.toTime,
	}
}

// ErrUnknownEvents is wrapped by Create and PreviewOf if none of the given
// event ids is in the log.
var ErrUnknownEvents = errors.New("none of the events exists")

// ID names a replay: "rpl_" and a UUIDv7.
type ID string

const prefix = id.Prefix("rpl_")

// NewID returns a new id, which sorts by creation time.
func NewID() ID { return ID(prefix.New()) }

// ParseID returns the canonical id in s, or ErrNotFound for one that no replay
// can have.
func ParseID(s string) (ID, error) {
	parsed, ok := prefix.Parse(s)
	if !ok {
		return "", postgres.ErrNotFound
	}
	return ID(parsed), nil
}

func (i ID) uuid() string {
	if i == "" {
		return uuid.Nil.String()
	}
	return prefix.UUID(string(i))
}

// Status is the state of a replay.
type Status string

// The states of a replay.
const (
	Running   Status = "running"
	Paused    Status = "paused"
	Cancelled Status = "cancelled" // nothing more is sent; deliveries that were sent are still made
	Done      Status = "done"      // everything is sent; deliveries may still be under way
	Failed    Status = "failed"    // see Error; it can be resumed
)

// Selection selects past events for a replay to one subscription. The zero
// value of a field selects all.
type Selection struct {
	Account      string
	Subscription subscription.ID
	// Cause is CauseReplay or CauseRedrive.
	Cause ledger.Cause
	// From and To include the position that they name; To excludes a time.
	From, To   eventlog.Place
	EventTypes []events.Pattern
	Subjects   []string
	EventIDs   []string
	// Positions of existing deliveries.
	Positions []int64
	// OnlyDead selects only dead deliveries; a redrive also takes those that
	// wait for a retry.
	OnlyDead bool
	Dead     ledger.DeadFilter
	// Unfiltered ignores the event types of the subscription.
	Unfiltered bool
	// Rate is the maximum number sent per second; 0 means no limit.
	Rate int
}

// Replay is a Selection that is being carried out.
type Replay struct {
	Selection
	ID ID
	// After and Through bound the positions; Position is the position reached.
	After, Through, Position int64
	Status                   Status
	// Matched events were either Sent, or Skipped because their delivery was
	// already under way.
	Matched, Sent, Skipped           int64
	Error                            string
	CreatedAt, UpdatedAt, FinishedAt time.Time

	fromTime, toTime sql.NullTime
}

const replayColumns = `
	id, account, subscription_id, cause, from_position, to_position, from_time, to_time, event_types, subjects, event_ids,
	positions, only_dead, coalesce(error_class, ''), coalesce(last_status, 0), dead_since, dead_until, filter, coalesce(rate, 0),
	status, position, matched, sent, skipped, error, created_at, updated_at, finished_at`

func scanReplay(scan func(...any) error) (Replay, error) {
	var (
		r                        Replay
		id, sub                  uuid.UUID
		types                    []string
		positions                pq.Int64Array
		filter                   string
		deadSince, deadUntil, at sql.NullTime
	)
	err := scan(&id, &r.Account, &sub, &r.Cause, &r.After, &r.Through, &r.fromTime, &r.toTime, pq.Array(&types), pq.Array(&r.Subjects),
		pq.Array(&r.EventIDs), &positions, &r.OnlyDead, &r.Dead.ErrorClass, &r.Dead.LastStatus, &deadSince, &deadUntil, &filter,
		&r.Rate, &r.Status, &r.Position, &r.Matched, &r.Sent, &r.Skipped, &r.Error, &r.CreatedAt, &r.UpdatedAt, &at)
	if err != nil {
		return Replay{}, fmt.Errorf("read replay: %w", err)
	}
	r.ID, r.Subscription = ID(string(prefix)+id.String()), subscription.FromUUID(sub)
	for _, t := range types {
		r.EventTypes = append(r.EventTypes, events.Pattern(t))
	}
	r.Positions = positions
	r.From = eventlog.Place{Position: r.After + 1, Time: r.fromTime.Time}
	r.To = eventlog.Place{Position: r.Through, Time: r.toTime.Time}
	r.Dead.Since, r.Dead.Until, r.FinishedAt = deadSince.Time, deadUntil.Time, at.Time
	r.Unfiltered = filter == "none"
	return r, nil
}

// plan turns a Selection into a replay of the records settled now.
func plan(ctx context.Context, q postgres.Queryer, s Selection) (Replay, error) {
	r := Replay{ID: NewID(), Selection: s, Status: Running}
	var err error
	if r.After, r.Through, err = eventlog.Bounds(ctx, q, s.From, s.To); err != nil {
		return Replay{}, err
	}
	r.Position = r.After
	r.fromTime = sql.NullTime{Time: s.From.Time, Valid: !s.From.Time.IsZero()}
	r.toTime = sql.NullTime{Time: s.To.Time, Valid: !s.To.Time.IsZero()}
	if len(s.EventIDs) > 0 {
		if err := q.QueryRowContext(ctx, `
			SELECT array_agg(position ORDER BY position) FROM posthorn.outbox
			WHERE id = ANY ($1) AND account = $2 AND kind <> 'subscription'`, pq.Array(s.EventIDs), s.Account).
			Scan((*pq.Int64Array)(&r.Positions)); err != nil {
			return Replay{}, fmt.Errorf("find events: %w", err)
		}
		if len(r.Positions) == 0 {
			return Replay{}, fmt.Errorf("find events: %w", ErrUnknownEvents)
		}
	}
	return r, nil
}

// Create creates a replay of events that are in the log now. It returns
// ErrNotFound if the subscription does not exist or was deleted.
func Create(ctx context.Context, db *sql.DB, s Selection) (Replay, error) {
	var created Replay
	err := postgres.CommitTx(ctx, db, func(tx *sql.Tx) error {
		// The row's lock keeps the subscription from being deleted meanwhile.
		var there bool
		if err := tx.QueryRowContext(ctx, `
			SELECT true FROM posthorn.subscriptions WHERE id = $1 AND account = $2 AND status <> 'deleted' FOR SHARE`,
			s.Subscription.UUID(), s.Account).Scan(&there); err != nil {
			return fmt.Errorf("look for subscription: %w", err)
		}
		r, err := plan(ctx, tx, s)
		if err != nil {
			return err
		}
		created, err = insertReplayTx(ctx, tx, r)
		return err
	})
	return created, err
}

// PastTx creates a replay of the events that a new subscription matches,
// from a place up to a position.
func PastTx(ctx context.Context, tx *sql.Tx, s subscription.Subscription, from eventlog.Place, through int64) error {
	r := Replay{
		ID: NewID(), Selection: Selection{Account: s.Account, Subscription: s.ID, Cause: ledger.CauseReplay}, Through: through,
		fromTime: postgres.TimeOrNull(from.Time),
	}
	var err error
	if r.After, err = from.After(ctx, tx, through); err != nil {
		return err
	}
	_, err = insertReplayTx(ctx, tx, r)
	return err
}

func insertReplayTx(ctx context.Context, tx *sql.Tx, r Replay) (Replay, error) {
	filter := "subscription"
	if r.Unfiltered {
		filter = "none"
	}
	return scanReplay(tx.QueryRowContext(ctx, `
		INSERT INTO posthorn.replays (id, account, subscription_id, cause, from_position, to_position, from_time, to_time, event_types,
		    subjects, event_ids, positions, only_dead, error_class, last_status, dead_since, dead_until, filter, rate, position)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, nullif($14, ''), nullif($15, 0), $16, $17, $18, nullif($19, 0), $5)
		RETURNING `+replayColumns,
		r.ID.uuid(), r.Account, r.Subscription.UUID(), r.Cause, r.After, r.Through, r.fromTime, r.toTime, postgres.TextsOrNull(matching.PatternTexts(r.EventTypes)),
		postgres.TextsOrNull(r.Subjects), postgres.TextsOrNull(r.EventIDs), postgres.PositionsOrNull(r.Positions), r.OnlyDead, r.Dead.ErrorClass, r.Dead.LastStatus,
		postgres.TimeOrNull(r.Dead.Since), postgres.TimeOrNull(r.Dead.Until), filter, r.Rate).Scan)
}

// ByID returns the account's replay with the id.
func ByID(ctx context.Context, q postgres.Queryer, account string, id ID) (Replay, error) {
	r, err := scanReplay(q.QueryRowContext(ctx, `
		SELECT `+replayColumns+` FROM posthorn.replays WHERE id = $1 AND account = $2`, id.uuid(), account).Scan)
	return r, postgres.Translate(err)
}

// Filter selects replays for a list; the zero value of a field selects
// all.
type Filter struct {
	Account      string
	Subscription subscription.ID
	Status       Status
	// Before is the last id of the previous page.
	Before ID
	Limit  int
}

// List returns one page of an account's replays, latest first.
func List(ctx context.Context, q postgres.Queryer, f Filter) (postgres.Page[Replay], error) {
	var sub, before any
	if f.Subscription != "" {
		sub = f.Subscription.UUID()
	}
	if f.Before != "" {
		before = f.Before.uuid()
	}
	return postgres.ReadPage(ctx, q, "list replays", `
		SELECT `+replayColumns+`,
		       octet_length(error) + coalesce(octet_length(event_types::text), 0) + coalesce(octet_length(subjects::text), 0)
		       + coalesce(octet_length(event_ids::text), 0) + coalesce(octet_length(positions::text), 0) + 512 AS page_size
		FROM posthorn.replays
		WHERE account = $1 AND ($2::uuid IS NULL OR subscription_id = $2) AND ($3 = '' OR status = $3) AND ($4::uuid IS NULL OR id < $4)`,
		"id DESC", f.Limit, []any{f.Account, sub, string(f.Status), before}, scanReplay)
}

// AllRunning returns the replays that the leading relay has to carry out.
func AllRunning(ctx context.Context, q postgres.Queryer) ([]Replay, error) {
	return queryReplays(ctx, q, `SELECT `+replayColumns+` FROM posthorn.replays WHERE status = 'running' ORDER BY id`)
}

func queryReplays(ctx context.Context, q postgres.Queryer, query string, args ...any) ([]Replay, error) {
	return postgres.Collect(ctx, q, "list replays", scanReplay, query, args...)
}

// SetStatus pauses, resumes (a failed one too) or cancels a replay. It wraps
// ErrState if that is not possible; setting the current status is not an error.
func SetStatus(ctx context.Context, db *sql.DB, account string, id ID, status Status) (Replay, error) {
	var from []Status
	switch status {
	case Paused:
		from = []Status{Running}
	case Running:
		from = []Status{Paused, Failed}
	case Cancelled:
		from = []Status{Running, Paused, Failed}
	case Done, Failed:
		return Replay{}, fmt.Errorf("change replay to %s: %w", status, postgres.ErrState)
	}
	var changed Replay
	err := postgres.CommitTx(ctx, db, func(tx *sql.Tx) (err error) {
		changed, err = scanReplay(tx.QueryRowContext(ctx, `
			SELECT `+replayColumns+` FROM posthorn.replays WHERE id = $1 AND account = $2 FOR NO KEY UPDATE`, id.uuid(), account).Scan)
		if err != nil || changed.Status == status {
			return err
		}
		if !slices.Contains(from, changed.Status) {
			return fmt.Errorf("the replay is %s: %w", changed.Status, postgres.ErrState)
		}
		changed, err = scanReplay(tx.QueryRowContext(ctx, `
			UPDATE posthorn.replays
			SET status = $2, error = '', updated_at = clock_timestamp(),
			    finished_at = CASE WHEN $2 = 'cancelled' THEN clock_timestamp() END
			WHERE id = $1 RETURNING `+replayColumns, id.uuid(), string(status)).Scan)
		return err
	})
	return changed, err
}

// Fail ends a running replay that cannot continue.
func Fail(ctx context.Context, q postgres.Queryer, id ID, why error) error {
	if _, err := q.ExecContext(ctx, `
		UPDATE posthorn.replays SET status = 'failed', error = $2, updated_at = clock_timestamp(), finished_at = clock_timestamp()
		WHERE id = $1 AND status = 'running'`, id.uuid(), why.Error()); err != nil {
		return postgres.Translate(fmt.Errorf("fail replay: %w", err))
	}
	return nil
}
