package replay

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/lib/pq"

	"posthorn/events"
	"posthorn/services/internal/eventlog"
	"posthorn/services/internal/ledger"
	"posthorn/services/internal/matching"
	"posthorn/services/internal/postgres"
	"posthorn/services/internal/subscription"
)

// Bounds of one step of a replay: positions scanned, and bytes of data sent.
const (
	replayPositions = 20_000
	replayBytes     = 8 << 20
)

// Step is the result of one step of a replay.
type Step struct {
	Replay
	// Due are the new runs, in position order: their messages are to be sent
	// now that the step is committed.
	Due []ledger.Due
	// Waiting: nothing could be done, because the relay has not reached these positions.
	Waiting bool
}

// TakeStep takes a running replay through its next stretch, at most rows
// deliveries long. In one transaction it begins a new run of each selected
// delivery that is finished or waits for a retry, or enters a delivery if there
// was none, and moves the replay's position. Deliveries that are under way are
// left alone. A replay that is no longer running is returned unchanged, with
// nothing due.
func TakeStep(ctx context.Context, db *sql.DB, id ID, rows int) (Step, error) {
	var step Step
	err := postgres.InTx(ctx, db, func(tx *sql.Tx) (err error) {
		step, err = stepReplayTx(ctx, tx, id, rows)
		return err
	})
	return step, err
}

func stepReplayTx(ctx context.Context, tx *sql.Tx, id ID, rows int) (Step, error) {
	// The row's lock serialises two relays that both believe that they lead,
	// and callers that pause or cancel.
	r, err := scanReplay(tx.QueryRowContext(ctx, `
		SELECT `+replayColumns+` FROM posthorn.replays WHERE id = $1 FOR NO KEY UPDATE`, id.uuid()).Scan)
	if err != nil || r.Status != Running {
		return Step{Replay: r}, err
	}
	// The route exists from when the relay passes the record of the
	// subscription's creation until it passes the record of its deletion. The
	// lock holds up the deletion, so that it finds the deliveries entered here
	// and cancels them.
	types, relayed, err := replayGroundTx(ctx, tx, r.Subscription)
	switch {
	case errors.Is(err, errDeleted):
		return finishReplayTx(ctx, tx, r, Cancelled, "the subscription was deleted")
	case err != nil:
		return Step{}, err
	}
	through := min(r.Through, relayed)
	if relayed == 0 || through <= r.Position && r.Position < r.Through {
		return Step{Replay: r, Waiting: true}, nil
	}
	found, through, err := selectReplayed(ctx, tx, r, types, through, rows)
	if err != nil {
		return Step{}, err
	}
	due, err := ledger.BeginRunsTx(ctx, tx, r.Subscription, found, ledger.Runs{Cause: r.Cause, OnlyDead: r.OnlyDead, OrWaiting: r.Cause == ledger.CauseRedrive})
	if err != nil {
		return Step{}, err
	}
	r.Position = through
	r.Matched += int64(len(found))
	r.Sent += int64(len(due))
	r.Skipped += int64(len(found) - len(due))
	status := Running
	if through >= r.Through {
		status = Done
	}
	step, err := finishReplayTx(ctx, tx, r, status, "")
	step.Due = due
	return step, err
}

var errDeleted = errors.New("subscription is deleted")

// replayGroundTx returns the subscription's current event types, and the
// position up to which the relay has entered owed deliveries in the ledger, or
// 0 while the relay does not know the subscription.
func replayGroundTx(ctx context.Context, tx *sql.Tx, id subscription.ID) (types []string, relayed int64, err error) {
	err = tx.QueryRowContext(ctx, `
		SELECT s.event_types, (SELECT position FROM posthorn.readers WHERE name = 'relay')
		FROM posthorn.routes r JOIN posthorn.subscriptions s ON s.id = r.subscription_id
		WHERE r.subscription_id = $1 FOR KEY SHARE OF r`, id.UUID()).Scan(pq.Array(&types), &relayed)
	if !errors.Is(err, sql.ErrNoRows) {
		if err != nil {
			err = fmt.Errorf("read route: %w", err)
		}
		return types, relayed, err
	}
	var deleted bool
	if err := tx.QueryRowContext(ctx, `
		SELECT status = 'deleted' FROM posthorn.subscriptions WHERE id = $1`, id.UUID()).Scan(&deleted); err != nil {
		return nil, 0, fmt.Errorf("read subscription: %w", err)
	}
	if deleted {
		return nil, 0, errDeleted
	}
	return nil, 0, nil
}

func finishReplayTx(ctx context.Context, tx *sql.Tx, r Replay, status Status, why string) (Step, error) {
	r, err := scanReplay(tx.QueryRowContext(ctx, `
		UPDATE posthorn.replays
		SET status = $2, position = $3, matched = $4, sent = $5, skipped = $6, error = $7, updated_at = clock_timestamp(),
		    finished_at = CASE WHEN $2 <> 'running' THEN clock_timestamp() END
		WHERE id = $1 RETURNING `+replayColumns,
		r.ID.uuid(), string(status), r.Position, r.Matched, r.Sent, r.Skipped, why).Scan)
	if err != nil {
		return Step{}, err
	}
	if status == Done && (r.Cause == ledger.CauseRedrive || r.OnlyDead) {
		if err := ledger.AskDeadQueueCheck(ctx, tx, r.Subscription); err != nil {
			return Step{}, err
		}
	}
	return Step{Replay: r}, nil
}

// selected are the conditions of a replay on a row o of the log.
const selected = `
	o.account = $1 AND (o.kind = 'event' OR o.kind = 'test' AND $2)
	AND ($3::text[] IS NULL OR ('.' || o.type) ~ ANY ($3)) AND ($4::text[] IS NULL OR ('.' || o.type) ~ ANY ($4))
	AND ($5::text[] IS NULL OR o.subject = ANY ($5)) AND ($6::bigint[] IS NULL OR o.position = ANY ($6))
	AND ($7::timestamptz IS NULL OR o.recorded_at >= $7) AND ($8::timestamptz IS NULL OR o.recorded_at < $8)`

// matcher decides which types are replayed: those of the selection that the
// subscription matches. The query has narrowed them.
func (r Replay) matcher(types []string) func(eventType string) bool {
	own := make([]events.Pattern, len(types))
	for i, t := range types {
		own[i] = events.Pattern(t)
	}
	subscribed, selected := matching.New(own), matching.New(r.EventTypes)
	return func(eventType string) bool {
		return (r.Unfiltered || subscribed.Match(eventType)) && (len(r.EventTypes) == 0 || selected.Match(eventType))
	}
}

// selectReplayed finds the positions of the replay's next stretch, up to
// through, and how far the stretch goes.
//
// It scans the log in closed ranges, as any reader does. A search by an index
// uses a LIMIT instead, so that a few events far apart are found without
// scanning the records between them.
func selectReplayed(ctx context.Context, q postgres.Queryer, r Replay, types []string, through int64, limit int) (found []int64, reached int64, err error) {
	args := r.selectedArgs(types)
	var query string
	switch {
	case r.OnlyDead:
		args = append(args, r.Position, through, limit, r.Subscription.UUID())
		args = append(args, r.Dead.Args()...)
		query = `
			WITH dead AS MATERIALIZED (
				(SELECT d.position FROM posthorn.deliveries d
				 WHERE d.subscription_id = $12 AND d.position > $9 AND d.position <= $10
				   AND ($6::bigint[] IS NULL OR d.position = ANY ($6)) AND ` + ledger.DeadConditions(13) + `
				 ORDER BY d.position LIMIT $11)
				UNION ALL
				(SELECT d.position FROM posthorn.deliveries d
				 WHERE $2 AND d.subscription_id = $12 AND d.position > $9 AND d.position <= $10
				   AND ($6::bigint[] IS NULL OR d.position = ANY ($6)) AND ` + ledger.Waiting + ` AND ` + ledger.FailedConditions(13) + `
				 ORDER BY d.position LIMIT $11)
				ORDER BY position LIMIT $11
			)
			SELECT dead.position, coalesce(octet_length(o.data), 0), o.position IS NOT NULL, coalesce(o.type, '')
			FROM dead LEFT JOIN posthorn.outbox o ON o.position = dead.position AND ` + selected + `
			ORDER BY dead.position`
	default:
		if len(r.Positions) == 0 && len(r.Subjects) == 0 {
			through = min(through, r.Position+replayPositions)
		}
		args = append(args, r.Position, through, limit)
		query = `
			SELECT o.position, octet_length(o.data), true, o.type FROM posthorn.outbox o
			WHERE o.position > $9 AND o.position <= $10 AND ` + selected + `
			ORDER BY o.position LIMIT $11`
	}
	wanted := r.matcher(types)
	rows, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, 0, postgres.Translate(fmt.Errorf("select events to replay: %w", err))
	}
	defer func() { err = postgres.Translate(errors.Join(err, rows.Close())) }()
	reached = r.Position
	seen, bytes := 0, 0
	for rows.Next() {
		var (
			position  int64
			size      int
			candidate bool
			eventType string
		)
		if err := rows.Scan(&position, &size, &candidate, &eventType); err != nil {
			return nil, 0, fmt.Errorf("read event to replay: %w", err)
		}
		seen++
		if bytes += size; bytes > replayBytes && len(found) > 0 {
			return found, reached, nil
		}
		reached = position
		if candidate && wanted(eventType) {
			found = append(found, position)
		}
	}
	if err := rows.Err(); err != nil {
		return nil, 0, fmt.Errorf("select events to replay: %w", err)
	}
	if seen < limit {
		reached = through
	}
	return found, reached, nil
}

// Preview shows the effect of a replay that would begin now.
type Preview struct {
	Replay // not stored
	// Matched events; Skipped of them are already being delivered.
	Matched, Skipped int64
	// First are the first of them, as many as were requested and fit into a
	// page.
	First []events.Event
}

// PreviewOf counts the events of a replay of the selection, and changes
// nothing.
func PreviewOf(ctx context.Context, q postgres.Queryer, s Selection, first int) (Preview, error) {
	sub, err := subscription.OfAccount(ctx, q, s.Account, s.Subscription)
	if err != nil {
		return Preview{}, err
	}
	r, err := plan(ctx, q, s)
	if err != nil {
		return Preview{}, err
	}
	types := matching.PatternTexts(sub.EventTypes)
	args := r.selectedArgs(types)
	args = append(args, r.After, r.Through, r.Subscription.UUID(), r.OnlyDead)
	args = append(args, r.Dead.Args()...)
	p := Preview{Replay: r}
	type counted struct {
		eventType        string
		matched, skipped int64
	}
	counts, err := postgres.Collect(ctx, q, "count events to replay", func(scan func(...any) error) (c counted, err error) {
		return c, scan(&c.eventType, &c.matched, &c.skipped)
	}, `
		SELECT o.type, count(*), count(*) FILTER (WHERE d.status IN ('pending', 'retrying') AND NOT `+ledger.Waiting+`)
		FROM posthorn.outbox o LEFT JOIN posthorn.deliveries d ON d.position = o.position AND d.subscription_id = $11
		WHERE o.position > $9 AND o.position <= $10 AND `+selected+` AND (NOT $12 OR `+ledger.DeadConditions(13)+`)
		GROUP BY o.type`, args...)
	if err != nil {
		return Preview{}, err
	}
	wanted := r.matcher(types)
	for _, c := range counts {
		if wanted(c.eventType) {
			p.Matched, p.Skipped = p.Matched+c.matched, p.Skipped+c.skipped
		}
	}
	positions := []int64{}
	for r.Position < r.Through && len(positions) < first {
		found, reached, err := selectReplayed(ctx, q, r, types, r.Through, first-len(positions))
		if err != nil {
			return Preview{}, err
		}
		positions, r.Position = append(positions, found...), reached
	}
	p.First, err = eventlog.EventsAt(ctx, q, positions)
	return p, err
}
