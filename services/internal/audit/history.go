package audit

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/lib/pq"

	"posthorn/events"
	"posthorn/services/internal/eventlog"
	"posthorn/services/internal/matching"
	"posthorn/services/internal/postgres"
	"posthorn/services/internal/subscription"
)

// history has the states of each subscription, from its records in the log. The
// session's temporary tables have the part that the comparison of a window
// needs: audit_states has the states of subscriptions that are not deleted,
// audit_wanted which of them want the types seen so far.
type history struct {
	states   map[string][]*state // that owe deliveries, by account
	last     map[subscription.ID]*state
	matchers map[string]matching.Matcher // by patterns: many subscriptions share them
	seen     map[typeOfAccount]bool      // types in audit_wanted
	wanted   int                         // its rows
}

// state is the state of a subscription between two positions, both excluded.
type state struct {
	id            subscription.ID
	status        subscription.Status
	matcher       matching.Matcher
	above, before int64
}

type typeOfAccount struct{ account, eventType string }

// maxWanted bounds audit_wanted: beyond it the table starts again.
const maxWanted = 1_000_000

// rowsAtOnce is how many rows one statement reads or inserts.
const rowsAtOnce = 5000

// readHistory reads the records up to a position. A record that cannot be read
// is skipped, as the relay does.
func readHistory(ctx context.Context, conn *sql.Conn, through int64) (*history, error) {
	h := &history{
		states: map[string][]*state{}, last: map[subscription.ID]*state{},
		matchers: map[string]matching.Matcher{}, seen: map[typeOfAccount]bool{},
	}
	if _, err := conn.ExecContext(ctx, `
		CREATE TEMPORARY TABLE IF NOT EXISTS audit_states (subscription_id uuid, above bigint, before bigint);
		CREATE TEMPORARY TABLE IF NOT EXISTS audit_wanted (account text, type text, subscription_id uuid, above bigint, before bigint);
		TRUNCATE pg_temp.audit_states, pg_temp.audit_wanted`); err != nil {
		return nil, fmt.Errorf("prepare audit: %w", err)
	}
	var kept []*state
	for after, more := int64(0), true; more; {
		var (
			page []*state
			err  error
		)
		if page, after, more, err = h.readPage(ctx, conn, after, through); err != nil {
			return nil, err
		}
		kept = append(kept, page...)
	}
	for page := range slices.Chunk(kept, rowsAtOnce) {
		ids, above, before := columns(page)
		if _, err := conn.ExecContext(ctx, `
			INSERT INTO pg_temp.audit_states (subscription_id, above, before)
			SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::bigint[])`, ids, above, before); err != nil {
			return nil, fmt.Errorf("keep subscription records: %w", err)
		}
	}
	return h, nil
}

// readPage reads records after a position, and returns the states that they begin, except those of
// deleted subscriptions.
func (h *history) readPage(ctx context.Context, conn *sql.Conn, after, through int64) (page []*state, last int64, more bool, err error) {
	rows, err := conn.QueryContext(ctx, `
		SELECT position, kind, account, subject, data FROM posthorn.outbox
		WHERE kind = 'subscription' AND kind <> 'event' AND position > $1 AND position <= $2 ORDER BY position LIMIT $3`,
		after, through, rowsAtOnce)
	if err != nil {
		return nil, 0, false, fmt.Errorf("read subscription records: %w", err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	n := 0
	for ; rows.Next(); n++ {
		var r eventlog.Record
		if err := rows.Scan(&last, &r.Kind, &r.Account, &r.Subject, &r.Data); err != nil {
			return nil, 0, false, fmt.Errorf("read subscription record: %w", err)
		}
		change, err := r.Change()
		if err != nil {
			continue
		}
		s, err := h.begin(change, last)
		if err != nil {
			return nil, 0, false, err
		}
		if s.status != subscription.Deleted {
			page = append(page, s)
		}
	}
	if err := rows.Err(); err != nil {
		return nil, 0, false, fmt.Errorf("read subscription records: %w", err)
	}
	return page, last, n == rowsAtOnce, nil
}

// begin ends the subscription's state before the position, and begins the next.
func (h *history) begin(change subscription.Record, position int64) (*state, error) {
	if before := h.last[change.ID]; before != nil {
		before.before = position
	}
	matcher, err := h.matcher(change.EventTypes)
	if err != nil {
		return nil, err
	}
	s := &state{id: change.ID, status: change.Status, matcher: matcher, above: position, before: math.MaxInt64}
	h.last[change.ID] = s
	if change.Status.Owed() {
		h.states[change.Account] = append(h.states[change.Account], s)
	}
	return s, nil
}

func (h *history) matcher(patterns []events.Pattern) (matching.Matcher, error) {
	text, err := json.Marshal(patterns)
	if err != nil {
		return matching.Matcher{}, fmt.Errorf("encode event types: %w", err)
	}
	m, ok := h.matchers[string(text)]
	if !ok {
		m = matching.New(patterns)
		h.matchers[string(text)] = m
	}
	return m, nil
}

// matchWindow fills audit_wanted with all types of a window.
func (h *history) matchWindow(ctx context.Context, tx *sql.Tx, after, through int64) error {
	types, err := postgres.Collect(ctx, tx, "read types of window", func(scan func(...any) error) (t typeOfAccount, err error) {
		return t, scan(&t.account, &t.eventType)
	}, `SELECT DISTINCT account, type FROM posthorn.outbox WHERE position > $1 AND position <= $2 AND kind = 'event'`, after, through)
	if err != nil {
		return err
	}
	if h.wanted > maxWanted {
		if _, err := tx.ExecContext(ctx, `TRUNCATE pg_temp.audit_wanted`); err != nil {
			return fmt.Errorf("start again with matches: %w", err)
		}
		h.wanted = 0
		clear(h.seen)
	}
	for _, t := range types {
		if h.seen[t] {
			continue
		}
		h.seen[t] = true
		if err := h.keepMatches(ctx, tx, t); err != nil {
			return err
		}
	}
	return nil
}

func (h *history) keepMatches(ctx context.Context, tx *sql.Tx, t typeOfAccount) error {
	var matched []*state
	for _, s := range h.states[t.account] {
		if s.matcher.Match(t.eventType) {
			matched = append(matched, s)
		}
	}
	h.wanted += len(matched)
	for page := range slices.Chunk(matched, rowsAtOnce) {
		ids, above, before := columns(page)
		if _, err := tx.ExecContext(ctx, `
			INSERT INTO pg_temp.audit_wanted (account, type, subscription_id, above, before)
			SELECT $1, $2, * FROM unnest($3::uuid[], $4::bigint[], $5::bigint[])`,
			t.account, t.eventType, ids, above, before); err != nil {
			return fmt.Errorf("keep matches: %w", err)
		}
	}
	return nil
}

func columns(states []*state) (ids, above, before any) {
	var (
		texts        []string
		lower, upper []int64
	)
	for _, s := range states {
		texts, lower, upper = append(texts, s.id.UUID()), append(lower, s.above), append(upper, s.before)
	}
	return pq.Array(texts), pq.Array(lower), pq.Array(upper)
}

// drop removes the session's tables.
func (h *history) drop(ctx context.Context, conn *sql.Conn) {
	_, _ = conn.ExecContext(ctx, `DROP TABLE IF EXISTS pg_temp.audit_states, pg_temp.audit_wanted`) // the session may be gone
}
