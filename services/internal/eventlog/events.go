package eventlog

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/lib/pq"

	"posthorn/events"
	"posthorn/services/internal/postgres"
)

// Filter selects events for a list; the zero value of a field selects all.
type Filter struct {
	Account string
	Type    string
	Subject string
	// Since (inclusive) and Until (exclusive) bound the time of recording.
	Since, Until time.Time
	// After and Before bound the position, both excluded.
	After, Before int64
	// Ascending lists the oldest first, and only settled events: a reader that
	// continues from the last position never misses a later commit.
	Ascending bool
	Limit     int
}

// clockSkew is how far the times of two records may contradict the order of
// their positions.
const clockSkew = 10 * time.Second

// List is one page of the events of an account, test events included.
func List(ctx context.Context, q postgres.Queryer, f Filter) (page postgres.Page[Record], err error) {
	var where postgres.Where
	where.And("account = ?", f.Account)
	where.Always("kind <> 'subscription'")
	before := f.Before
	if f.Ascending {
		horizon, err := Horizon(ctx, q)
		if err != nil {
			return page, err
		}
		if before == 0 || before > horizon+1 {
			before = horizon + 1
		}
	}
	after := f.After
	// Convert the times to positions first, so that the cost of a page does not
	// depend on its age.
	if !f.Since.IsZero() {
		from, err := positionSince(ctx, q, f.Since.Add(-clockSkew))
		if err != nil {
			return page, err
		}
		after = max(after, from-1)
		where.And("recorded_at >= ?", f.Since)
	}
	if !f.Until.IsZero() {
		to, err := positionSince(ctx, q, f.Until.Add(clockSkew))
		if err != nil {
			return page, err
		}
		if before == 0 || before > to {
			before = to
		}
		where.And("recorded_at < ?", f.Until)
	}
	if after > 0 {
		where.And("position > ?", after)
	}
	if before > 0 {
		where.And("position < ?", before)
	}
	if f.Type != "" {
		where.And("type = ?", f.Type)
	}
	if f.Subject != "" {
		where.And("subject = ?", f.Subject)
	}
	order := "DESC"
	if f.Ascending {
		order = "ASC"
	}
	limit := where.Arg(f.Limit + 1)
	return recordsOfPage(ctx, q, "list events", `SELECT position, `+recordSize+` FROM posthorn.outbox
		WHERE `+where.String()+`
		ORDER BY position `+order+` LIMIT `+limit, f.Limit, where.Args()...)
}

func positionSince(ctx context.Context, q postgres.Queryer, at time.Time) (int64, error) {
	var position int64
	if err := q.QueryRowContext(ctx, `SELECT posthorn.position_since($1)`, at).Scan(&position); err != nil {
		return 0, postgres.Translate(fmt.Errorf("find position of time: %w", err))
	}
	return position, nil
}

// ByID returns the event of the account with the id.
func ByID(ctx context.Context, q postgres.Queryer, account, id string) (r Record, err error) {
	rows, err := q.QueryContext(ctx, `
		SELECT `+recordColumns+` FROM posthorn.outbox
		WHERE id = $1 AND account = $2 AND kind <> 'subscription' ORDER BY position LIMIT 1`, id, account)
	if err != nil {
		return Record{}, postgres.Translate(fmt.Errorf("read event: %w", err))
	}
	defer func() { err = postgres.Translate(errors.Join(err, rows.Close())) }()
	if !rows.Next() {
		if err := rows.Err(); err != nil {
			return Record{}, fmt.Errorf("read event: %w", err)
		}
		return Record{}, postgres.ErrNotFound
	}
	return scanRecord(rows.Scan)
}

// EventsAt returns the first events at the positions, as many as fit into a page.
func EventsAt(ctx context.Context, q postgres.Queryer, positions []int64) ([]events.Event, error) {
	page, err := recordsOfPage(ctx, q, "read events", `
		SELECT position, `+recordSize+` FROM posthorn.outbox WHERE position = ANY ($1) ORDER BY position`, len(positions), pq.Array(positions))
	if err != nil {
		return nil, err
	}
	list := make([]events.Event, len(page.Items))
	for i, r := range page.Items {
		list[i] = r.Event
	}
	return list, nil
}
