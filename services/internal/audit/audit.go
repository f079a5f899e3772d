package audit

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/google/uuid"
	"github.com/lib/pq"

	"posthorn/services/internal/eventlog"
	"posthorn/services/internal/ledger"
	"posthorn/services/internal/postgres"
	"posthorn/services/internal/subscription"
)

// Problem is a kind of fault of a delivery, or of a missing one.
type Problem string

// The problems that Audit finds.
const (
	// Lost: owed, and not in the ledger.
	Lost Problem = "lost"
	// Stuck: in the ledger, not finished, and overdue or without a next attempt.
	Stuck Problem = "stuck"
	// Unproven: delivered, without an attempt in its run that got a 2xx.
	Unproven Problem = "unproven"
	// Unexpected: in the ledger, although neither owed nor part of a replay.
	Unexpected Problem = "unexpected"
	// Misrouted: the subscription belongs to another account than the event.
	Misrouted Problem = "misrouted"
	// Quarantine: set aside, and not forwarded until an operator releases or drops it.
	Quarantine Problem = "quarantined"
	// Duplicated: got more than one 2xx within a run. A crash can cause it; it
	// does not break a promise.
	Duplicated Problem = "duplicated"
)

// Problems returns all problems, the most serious first.
func Problems() []Problem {
	return []Problem{Lost, Misrouted, Unexpected, Unproven, Stuck, Quarantine, Duplicated}
}

// Finding is one delivery with a problem.
type Finding struct {
	Problem      Problem
	Position     int64
	EventID      string // empty if the log has no such event
	Subscription subscription.ID
	// Status, Cause and Run of the delivery; for a lost one Cause is the
	// expected one and the rest is empty.
	Status ledger.Status
	Cause  ledger.Cause
	Run    int
	// Repaired: a lost delivery is in the ledger now, a stuck one has its missing next attempt or
	// end.
	Repaired bool
}

// Options say what to audit.
type Options struct {
	// After and Through bound the positions; Through 0 means the relay's position, which the audit
	// never passes, since later records have not been forwarded yet. A negative Through selects
	// nothing.
	After, Through int64
	// Grace is how late an unfinished delivery may be. Default 10 minutes.
	Grace time.Duration
	// Window is how many positions are compared at a time. Default 50,000.
	Window int64
	// Repair enters lost deliveries, due at once, for the sweeper to send, and
	// schedules a next attempt for stuck ones that have none.
	Repair bool
	// Found gets each finding, in the order of the log, window by window.
	Found func(Finding) error
	// Progress, if set, is called after each window with the position reached.
	Progress func(through, end int64)
}

// Report is the result of an audit.
type Report struct {
	After, Through int64
	// Waiting counts the events that the relay has not reached.
	Waiting int64
	// Events in the range, deliveries owed for them, and rows in the ledger.
	Events, Owed, Deliveries int64
	ByStatus                 map[ledger.Status]int64
	Found                    map[Problem]int64
	Repaired                 int64
}

// Run compares the ledger with the deliveries that the log implies: for each
// event, one delivery for each subscription that was live and matched at its
// position. It derives the state of a subscription from its records in the log,
// not from the relay's own tables.
//
// One statement compares each window, so in one snapshot, and no transaction spans two windows.
// matching.Matcher decides which events a subscription wanted, once for each type.
func Run(ctx context.Context, db *sql.DB, o Options) (Report, error) {
	if o.Grace == 0 {
		o.Grace = 10 * time.Minute
	}
	if o.Window == 0 {
		o.Window = 50_000
	}
	report := Report{ByStatus: map[ledger.Status]int64{}, Found: map[Problem]int64{}}
	conn, err := db.Conn(ctx)
	if err != nil {
		return report, postgres.Translate(fmt.Errorf("connect to audit: %w", err))
	}
	defer func() { _ = conn.Close() }()

	// Read the position first: everything that the relay owed up to it is committed.
	relayed, err := eventlog.RelayPosition(ctx, conn)
	if err != nil {
		return report, err
	}
	if err := auditRange(ctx, conn, o, relayed, &report); err != nil {
		return report, err
	}
	if report.After >= report.Through {
		return report, nil
	}
	past, err := readHistory(ctx, conn, report.Through)
	if err != nil {
		return report, postgres.Translate(err)
	}
	defer past.drop(context.WithoutCancel(ctx), conn)
	for after := report.After; after < report.Through; {
		through := min(after+o.Window, report.Through)
		if err := auditWindow(ctx, conn, o, past, after, through, &report); err != nil {
			return report, postgres.Translate(err)
		}
		if o.Progress != nil {
			o.Progress(through, report.Through)
		}
		after = through
	}
	return report, nil
}

// auditRange determines the audited range and counts the waiting events.
func auditRange(ctx context.Context, conn *sql.Conn, o Options, relayed int64, report *Report) error {
	end := o.Through
	if end == 0 {
		end = math.MaxInt64
	}
	var first int64
	if err := conn.QueryRowContext(ctx, `
		SELECT coalesce((SELECT position FROM posthorn.outbox ORDER BY position LIMIT 1), 1)`).Scan(&first); err != nil {
		return postgres.Translate(fmt.Errorf("find the beginning of the log: %w", err))
	}
	report.After, report.Through = max(o.After, first-1), max(min(end, relayed), 0)
	err := conn.QueryRowContext(ctx, `
		SELECT count(*) FROM posthorn.outbox WHERE position > $1 AND position <= $2 AND kind <> 'subscription'`,
		max(relayed, o.After), end).Scan(&report.Waiting)
	if err != nil {
		return postgres.Translate(fmt.Errorf("count waiting events: %w", err))
	}
	return nil
}

// auditStatement compares one window; audit_wanted has the wanted types. $1 and
// $2 bound it, $3 is the grace.
const auditStatement = `
	WITH happened AS MATERIALIZED (
		SELECT position, kind, id, account, type, CASE WHEN kind = 'test' THEN metadata ->> '` + subscription.TestTarget + `' END AS target
		FROM posthorn.outbox WHERE position > $1 AND position <= $2 AND kind <> 'subscription'
	), aside AS MATERIALIZED (
		SELECT position, event_id, status FROM posthorn.quarantine
		WHERE position > $1 AND position <= $2 AND status IN ('held', 'dropped')
	), wanted AS MATERIALIZED (
		SELECT account, type, subscription_id, above, before FROM pg_temp.audit_wanted WHERE above < $2 AND before > $1
	), owed AS MATERIALIZED (
		SELECT h.position, w.subscription_id, 'live' AS cause
		FROM happened h JOIN wanted w ON w.account = h.account AND w.type = h.type AND h.position > w.above AND h.position < w.before
		WHERE h.kind = 'event' AND NOT EXISTS (SELECT FROM aside a WHERE a.position = h.position)
		UNION ALL
		SELECT h.position, s.subscription_id, 'test'
		FROM happened h JOIN pg_temp.audit_states s
		  ON h.target = 'sub_' || s.subscription_id::text AND h.position > s.above AND h.position < s.before
		WHERE h.kind = 'test' AND NOT EXISTS (SELECT FROM aside a WHERE a.position = h.position)
	), entered AS MATERIALIZED (
		SELECT position, subscription_id, event_id, status, cause, run, next_attempt_at, claimed_until, created_at
		FROM posthorn.deliveries WHERE position > $1 AND position <= $2
	), tried AS MATERIALIZED (
		SELECT position, subscription_id, run, count(*) FILTER (WHERE error_class = 'ok') AS ok
		FROM posthorn.attempts WHERE position > $1 AND position <= $2
		GROUP BY position, subscription_id, run
	), compared AS (
		SELECT coalesce(w.position, d.position) AS position, coalesce(w.subscription_id, d.subscription_id) AS subscription_id,
		       coalesce(d.status, '') AS status, coalesce(d.cause, w.cause) AS cause, coalesce(d.run, 0) AS run,
		       CASE
		           WHEN d.position IS NULL THEN 'lost'
		           WHEN s.account <> h.account THEN 'misrouted'
		           WHEN s.id IS NULL OR h.id IS NULL OR d.event_id <> h.id THEN 'unexpected'
		           WHEN w.position IS NULL AND d.run = 0 AND d.cause NOT IN ('replay', 'redrive') THEN 'unexpected'
		           WHEN d.status = 'delivered' AND coalesce(t.ok, 0) = 0 THEN 'unproven'
		           WHEN d.status NOT IN ('pending', 'retrying') THEN NULL
		           WHEN d.next_attempt_at IS NULL THEN 'stuck'
		           -- Paused or disabled they wait, and after that they are given time
		           -- again. Of a deleted one nothing is pending.
		           WHEN coalesce(r.status, 'active') = 'active' AND coalesce(d.claimed_until, '-infinity') < clock_timestamp()
		            AND greatest(d.next_attempt_at, s.updated_at, d.created_at) < clock_timestamp() - $3::interval THEN 'stuck'
		       END AS problem
		FROM owed w FULL JOIN entered d ON d.position = w.position AND d.subscription_id = w.subscription_id
		LEFT JOIN happened h ON h.position = coalesce(w.position, d.position)
		LEFT JOIN posthorn.subscriptions s ON s.id = coalesce(w.subscription_id, d.subscription_id)
		LEFT JOIN posthorn.routes r ON r.subscription_id = d.subscription_id
		LEFT JOIN tried t ON t.position = d.position AND t.subscription_id = d.subscription_id AND t.run = d.run
	), found AS (
		SELECT position, subscription_id, status, cause, run, problem FROM compared WHERE problem IS NOT NULL
		UNION ALL
		SELECT position, subscription_id, coalesce(d.status, ''), coalesce(d.cause, ''), t.run, 'duplicated'
		FROM tried t LEFT JOIN entered d USING (position, subscription_id) WHERE t.ok > 1
		UNION ALL
		SELECT position, NULL, '', '', 0, 'quarantined' FROM aside WHERE status = 'held'
	), totals AS (
		SELECT (SELECT count(*) FROM happened) AS events, (SELECT count(*) FROM owed) AS owed,
		       count(*) FILTER (WHERE status = 'pending') AS pending, count(*) FILTER (WHERE status = 'retrying') AS retrying,
		       count(*) FILTER (WHERE status = 'delivered') AS delivered, count(*) FILTER (WHERE status = 'dead') AS dead,
		       count(*) FILTER (WHERE status = 'cancelled') AS cancelled
		FROM entered
	)
	SELECT t.events, t.owed, t.pending, t.retrying, t.delivered, t.dead, t.cancelled,
	       coalesce(f.problem, ''), coalesce(f.position, 0), coalesce(h.id, a.event_id, ''),
	       coalesce(f.subscription_id, '00000000-0000-0000-0000-000000000000'), f.status, f.cause, coalesce(f.run, 0)
	FROM totals t LEFT JOIN found f ON true LEFT JOIN happened h ON h.position = f.position
	LEFT JOIN aside a ON a.position = f.position
	ORDER BY f.position, f.subscription_id, f.problem`

func auditWindow(ctx context.Context, conn *sql.Conn, o Options, past *history, after, through int64, report *Report) error {
	var findings []Finding
	tx, err := conn.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("begin window: %w", err)
	}
	defer func() { _ = tx.Rollback() }() // has no effect after the commit
	// A window is a range of keys in each table, so neither a scan of whole
	// partitions nor a nested loop over a window pays, whatever the statistics
	// say.
	if _, err := tx.ExecContext(ctx, `
		SELECT set_config('enable_seqscan', 'off', true), set_config('enable_nestloop', 'off', true),
		       set_config('jit', 'off', true), set_config('work_mem', '64MB', true)`); err != nil {
		return fmt.Errorf("prepare window: %w", err)
	}
	if err := past.matchWindow(ctx, tx, after, through); err != nil {
		return err
	}
	if findings, err = compareWindow(ctx, tx, o, after, through, report); err != nil {
		return err
	}
	if o.Repair {
		n, err := repairTx(ctx, tx, findings)
		if err != nil {
			return err
		}
		report.Repaired += n
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("commit window: %w", err)
	}
	for _, f := range findings {
		report.Found[f.Problem]++
		if o.Found == nil {
			continue
		}
		if err := o.Found(f); err != nil {
			return err
		}
	}
	return nil
}

func compareWindow(ctx context.Context, tx *sql.Tx, o Options, after, through int64, report *Report) (findings []Finding, err error) {
	rows, err := tx.QueryContext(ctx, auditStatement, after, through, postgres.Interval(o.Grace))
	if err != nil {
		return nil, fmt.Errorf("compare log and ledger: %w", err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for first := true; rows.Next(); first = false {
		var (
			f                                           Finding
			id                                          uuid.UUID
			status, cause                               sql.NullString
			events, owed                                int64
			pending, retrying, delivered, dead, canceld int64
		)
		if err := rows.Scan(&events, &owed, &pending, &retrying, &delivered, &dead, &canceld,
			&f.Problem, &f.Position, &f.EventID, &id, &status, &cause, &f.Run); err != nil {
			return nil, fmt.Errorf("read finding: %w", err)
		}
		if first {
			report.Events += events
			report.Owed += owed
			report.Deliveries += pending + retrying + delivered + dead + canceld
			for s, n := range map[ledger.Status]int64{
				ledger.Pending: pending, ledger.Retrying: retrying, ledger.Delivered: delivered, ledger.Dead: dead, ledger.Cancelled: canceld,
			} {
				report.ByStatus[s] += n
			}
		}
		if f.Problem == "" {
			continue // the row of a window without findings
		}
		f.Status, f.Cause = ledger.Status(status.String), ledger.Cause(cause.String)
		if id != uuid.Nil {
			f.Subscription = subscription.FromUUID(id)
		}
		findings = append(findings, f)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("compare log and ledger: %w", err)
	}
	return findings, nil
}

// repairTx enters lost deliveries as the relay would have, due now, and
// schedules a next attempt for stuck ones, or ends them if the subscription is
// gone. It marks the repaired findings.
func repairTx(ctx context.Context, tx *sql.Tx, findings []Finding) (repaired int64, err error) {
	var (
		indexes, positions  []int64
		ids, events, causes []string
	)
	for i, f := range findings {
		if f.Problem == Lost || f.Problem == Stuck {
			indexes, positions = append(indexes, int64(i)), append(positions, f.Position)
			ids, events, causes = append(ids, f.Subscription.UUID()), append(events, f.EventID), append(causes, string(f.Cause))
		}
	}
	if len(indexes) == 0 {
		return 0, nil
	}
	rows, err := tx.QueryContext(ctx, `
		WITH given AS MATERIALIZED (
			SELECT g.*, r.subscription_id IS NOT NULL AS live
			FROM unnest($1::bigint[], $2::bigint[], $3::uuid[], $4::text[], $5::text[]) AS g(index, position, subscription_id, event_id, cause)
			LEFT JOIN posthorn.routes r USING (subscription_id)
		), mended AS (
			INSERT INTO posthorn.deliveries AS d (position, subscription_id, event_id, cause, status, next_attempt_at, finished_at)
			SELECT position, subscription_id, event_id, cause, CASE WHEN live THEN 'pending' ELSE 'cancelled' END,
			       CASE WHEN live THEN clock_timestamp() END, CASE WHEN NOT live THEN clock_timestamp() END
			FROM given ORDER BY position, subscription_id
			ON CONFLICT (position, subscription_id) DO UPDATE
			SET status = CASE WHEN excluded.status = 'cancelled' THEN 'cancelled' ELSE d.status END,
			    next_attempt_at = excluded.next_attempt_at, finished_at = excluded.finished_at
			WHERE d.status IN ('pending', 'retrying') AND (d.next_attempt_at IS NULL OR excluded.status = 'cancelled')
			RETURNING d.position, d.subscription_id
		)
		SELECT g.index FROM given g JOIN mended USING (position, subscription_id)`,
		pq.Array(indexes), pq.Array(positions), pq.Array(ids), pq.Array(events), pq.Array(causes))
	if err != nil {
		return 0, fmt.Errorf("repair: %w", err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var i int
		if err := rows.Scan(&i); err != nil {
			return 0, fmt.Errorf("read repaired deliveries: %w", err)
		}
		findings[i].Repaired = true
		repaired++
	}
	if err := rows.Err(); err != nil {
		return 0, fmt.Errorf("repair: %w", err)
	}
	return repaired, nil
}
