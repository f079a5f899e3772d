package postgres

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/lib/pq"

	"posthorn/events"
	"posthorn/services/internal/subscription"
)

// ErrState is wrapped when something is not in a state in which the change
// that was asked for is possible.
var ErrState = errors.New("not possible in this state")

// ErrUnknownEvents is wrapped by CreateReplay and PreviewReplay when event
// ids were given of which not one is in the log.
var ErrUnknownEvents = errors.New("none of the events exists")

// ReplayID names a replay: "rpl_" and a UUIDv7.
type ReplayID string

const replayPrefix = "rpl_"

// NewReplayID returns a new id, which sorts by the time at which it was made.
func NewReplayID() ReplayID { return ReplayID(replayPrefix + uuid.Must(uuid.NewV7()).String()) }

// ParseReplayID returns the id that s spells; ErrNotFound for one that no
// replay can have.
func ParseReplayID(s string) (ReplayID, error) {
	bare, ok := strings.CutPrefix(s, replayPrefix)
	if !ok || len(bare) != 36 {
		return "", ErrNotFound
	}
	u, err := uuid.Parse(bare)
	if err != nil {
		return "", ErrNotFound
	}
	return ReplayID(replayPrefix + u.String()), nil
}

func (id ReplayID) uuid() string {
	if id == "" {
		return uuid.Nil.String()
	}
	return strings.TrimPrefix(string(id), replayPrefix)
}

// ReplayStatus is the state of a replay.
type ReplayStatus string

// The states of a replay.
const (
	ReplayRunning   ReplayStatus = "running"
	ReplayPaused    ReplayStatus = "paused"
	ReplayCancelled ReplayStatus = "cancelled" // what was sent is delivered, nothing more is sent
	ReplayDone      ReplayStatus = "done"      // everything is sent; deliveries may still be under way
	ReplayFailed    ReplayStatus = "failed"    // see Error; it can be resumed
)

// Causes of replays, which are those of their deliveries.
const (
	CauseReplay  = "replay"
	CauseRedrive = "redrive"
)

// DeadFilter selects dead deliveries; the zero value of a field selects all.
type DeadFilter struct {
	ErrorClass string
	LastStatus int
	// Since and Until bound the time of death: at or after, and before.
	Since, Until time.Time
}

// Selection is what a replay is of: past events for one subscription. The zero
// value of a field selects all.
type Selection struct {
	Account      string
	Subscription subscription.ID
	Cause        string
	// From and To include the position that they name; To excludes a time.
	From, To   Place
	EventTypes []events.Pattern
	Subjects   []string
	EventIDs   []string
	// Positions of deliveries that exist.
	Positions []int64
	// OnlyDead: of the deliveries only those that are dead; a redrive also takes
	// those that wait for a retry.
	OnlyDead bool
	Dead     DeadFilter
	// Unfiltered: the event types of the subscription do not count.
	Unfiltered bool
	// Rate is how many are sent in a second; 0 is no limit.
	Rate int
}

// Replay is a Selection at work.
type Replay struct {
	Selection
	ID ReplayID
	// After and Through bound the positions; Position is how far it has come.
	After, Through, Position int64
	Status                   ReplayStatus
	// Matched events were either Sent or Skipped, since their delivery was
	// under way anyhow.
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
	r.ID, r.Subscription = ReplayID(replayPrefix+id.String()), subscription.FromUUID(sub)
	for _, t := range types {
		r.EventTypes = append(r.EventTypes, events.Pattern(t))
	}
	r.Positions = positions
	r.From = Place{Position: r.After + 1, Time: r.fromTime.Time}
	r.To = Place{Position: r.Through, Time: r.toTime.Time}
	r.Dead.Since, r.Dead.Until, r.FinishedAt = deadSince.Time, deadUntil.Time, at.Time
	r.Unfiltered = filter == "none"
	return r, nil
}

// plan turns a Selection into a replay of what is settled now.
func plan(ctx context.Context, q Queryer, s Selection) (Replay, error) {
	r := Replay{ID: NewReplayID(), Selection: s, Status: ReplayRunning}
	var err error
	if r.After, r.Through, err = Bounds(ctx, q, s.From, s.To); err != nil {
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

// CreateReplay makes a replay of what is in the log now. ErrNotFound where the
// subscription does not exist or was deleted.
func CreateReplay(ctx context.Context, db *sql.DB, s Selection) (Replay, error) {
	var created Replay
	err := commitTx(ctx, db, func(tx *sql.Tx) error {
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

// replayPastTx creates a replay of the events that a new subscription matches,
// from a place up to a position.
func replayPastTx(ctx context.Context, tx *sql.Tx, s subscription.Subscription, from Place, through int64) error {
	r := Replay{
		ID: NewReplayID(), Selection: Selection{Account: s.Account, Subscription: s.ID, Cause: CauseReplay}, Through: through,
		fromTime: timeOrNull(from.Time),
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
		r.ID.uuid(), r.Account, r.Subscription.UUID(), r.Cause, r.After, r.Through, r.fromTime, r.toTime, textsOrNull(patternTexts(r.EventTypes)),
		textsOrNull(r.Subjects), textsOrNull(r.EventIDs), positionsOrNull(r.Positions), r.OnlyDead, r.Dead.ErrorClass, r.Dead.LastStatus,
		timeOrNull(r.Dead.Since), timeOrNull(r.Dead.Until), filter, r.Rate).Scan)
}

func patternTexts(patterns []events.Pattern) []string {
	texts := make([]string, len(patterns))
	for i, p := range patterns {
		texts[i] = string(p)
	}
	return texts
}

func textsOrNull(texts []string) any {
	if len(texts) == 0 {
		return nil
	}
	return pq.Array(texts)
}

func positionsOrNull(positions []int64) any {
	if len(positions) == 0 {
		return nil
	}
	return pq.Array(positions)
}

func timeOrNull(t time.Time) sql.NullTime { return sql.NullTime{Time: t, Valid: !t.IsZero()} }

// ReplayByID is the account's replay with the id.
func ReplayByID(ctx context.Context, q Queryer, account string, id ReplayID) (Replay, error) {
	r, err := scanReplay(q.QueryRowContext(ctx, `
		SELECT `+replayColumns+` FROM posthorn.replays WHERE id = $1 AND account = $2`, id.uuid(), account).Scan)
	return r, Translate(err)
}

// ReplayFilter selects replays for a list; the zero value of a field selects
// all.
type ReplayFilter struct {
	Account      string
	Subscription subscription.ID
	Status       ReplayStatus
	// Before is the last id of the page before.
	Before ReplayID
	Limit  int
}

// ListReplays is one page of an account's replays, the latest first.
func ListReplays(ctx context.Context, q Queryer, f ReplayFilter) (Page[Replay], error) {
	var sub, before any
	if f.Subscription != "" {
		sub = f.Subscription.UUID()
	}
	if f.Before != "" {
		before = f.Before.uuid()
	}
	return readPage(ctx, q, "list replays", `
		SELECT `+replayColumns+`,
		       octet_length(error) + coalesce(octet_length(event_types::text), 0) + coalesce(octet_length(subjects::text), 0)
		       + coalesce(octet_length(event_ids::text), 0) + coalesce(octet_length(positions::text), 0) + 512 AS page_size
		FROM posthorn.replays
		WHERE account = $1 AND ($2::uuid IS NULL OR subscription_id = $2) AND ($3 = '' OR status = $3) AND ($4::uuid IS NULL OR id < $4)`,
		"id DESC", f.Limit, []any{f.Account, sub, string(f.Status), before}, scanReplay)
}

// RunningReplays are those that the leading relay has to work at.
func RunningReplays(ctx context.Context, q Queryer) ([]Replay, error) {
	return queryReplays(ctx, q, `SELECT `+replayColumns+` FROM posthorn.replays WHERE status = 'running' ORDER BY id`)
}

func queryReplays(ctx context.Context, q Queryer, query string, args ...any) (list []Replay, err error) {
	rows, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, Translate(fmt.Errorf("list replays: %w", err))
	}
	defer func() { err = Translate(errors.Join(err, rows.Close())) }()
	for rows.Next() {
		r, err := scanReplay(rows.Scan)
		if err != nil {
			return nil, err
		}
		list = append(list, r)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("list replays: %w", err)
	}
	return list, nil
}

// SetReplayStatus pauses, resumes (a failed one too) or cancels a replay. It
// wraps ErrState where that is not possible; what is so already is no error.
func SetReplayStatus(ctx context.Context, db *sql.DB, account string, id ReplayID, status ReplayStatus) (Replay, error) {
	var from []ReplayStatus
	switch status {
	case ReplayPaused:
		from = []ReplayStatus{ReplayRunning}
	case ReplayRunning:
		from = []ReplayStatus{ReplayPaused, ReplayFailed}
	case ReplayCancelled:
		from = []ReplayStatus{ReplayRunning, ReplayPaused, ReplayFailed}
	case ReplayDone, ReplayFailed:
		return Replay{}, fmt.Errorf("change replay to %s: %w", status, ErrState)
	}
	var changed Replay
	err := commitTx(ctx, db, func(tx *sql.Tx) (err error) {
		changed, err = scanReplay(tx.QueryRowContext(ctx, `
			SELECT `+replayColumns+` FROM posthorn.replays WHERE id = $1 AND account = $2 FOR NO KEY UPDATE`, id.uuid(), account).Scan)
		if err != nil || changed.Status == status {
			return err
		}
		if !slices.Contains(from, changed.Status) {
			return fmt.Errorf("the replay is %s: %w", changed.Status, ErrState)
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

// FailReplay ends a running replay that cannot go on.
func FailReplay(ctx context.Context, q Queryer, id ReplayID, why error) error {
	if _, err := q.ExecContext(ctx, `
		UPDATE posthorn.replays SET status = 'failed', error = $2, updated_at = clock_timestamp(), finished_at = clock_timestamp()
		WHERE id = $1 AND status = 'running'`, id.uuid(), why.Error()); err != nil {
		return Translate(fmt.Errorf("fail replay: %w", err))
	}
	return nil
}
