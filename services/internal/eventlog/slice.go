package eventlog

import (
	"context"
	"math"
	"slices"
	"time"

	"github.com/lib/pq"

	"posthorn/events"
	"posthorn/services/internal/matching"
	"posthorn/services/internal/postgres"
)

// Slice selects records of the log; the zero value of a field selects all.
type Slice struct {
	// After and Through bound the positions; Through is included and, so that
	// late commits are not missed, no higher than the horizon.
	After, Through int64
	// Since (inclusive) and Until (exclusive) bound the time of recording.
	Since, Until time.Time
	Account      string
	Kinds        []Kind
	Types        []events.Pattern
	Subjects     []string
	IDs          []string
}

// Bounds of one read of a slice: positions scanned, records returned, and
// approximate bytes of data.
const (
	slicePositions = 20_000
	sliceRecords   = 500
	sliceBytes     = 8 << 20
)

// conditions returns the slice as conditions on a row of the log.
func (s Slice) conditions() (w postgres.Where) {
	w.And("position > ?", s.After)
	w.And("position <= ?", s.Through)
	if !s.Since.IsZero() {
		w.And("recorded_at >= ?", s.Since)
	}
	if !s.Until.IsZero() {
		w.And("recorded_at < ?", s.Until)
	}
	if s.Account != "" {
		w.And("account = ?", s.Account)
	}
	if len(s.Kinds) > 0 {
		w.And("kind = ANY (?)", pq.Array(s.Kinds))
	}
	if len(s.IDs) > 0 {
		w.And("id = ANY (?)", pq.Array(s.IDs))
	}
	if len(s.Subjects) > 0 {
		w.And("subject = ANY (?) AND subject <> ''", pq.Array(s.Subjects))
	}
	if len(s.Types) > 0 {
		// This narrows, and the Matcher decides.
		if slices.ContainsFunc(s.Types, func(p events.Pattern) bool { return !p.Exact() }) {
			w.And("('.' || type) ~ ANY (?)", pq.Array(matching.PatternExpressions(matching.PatternTexts(s.Types))))
		} else {
			w.And("type = ANY (?)", pq.Array(s.Types))
		}
	}
	return w
}

// selects reports whether a record's type is one of the slice's.
func (s Slice) selects() func(eventType string) bool {
	if len(s.Types) == 0 {
		return func(string) bool { return true }
	}
	return matching.New(s.Types).Match
}

// recordsIn returns the records at the positions that the slice selects.
func (s Slice) recordsIn(ctx context.Context, q postgres.Queryer, what string, positions []int64) ([]Record, error) {
	records, err := recordsAt(ctx, q, what, positions)
	if err != nil {
		return nil, err
	}
	selects := s.selects()
	return slices.DeleteFunc(records, func(r Record) bool { return !selects(r.Type) }), nil
}

// ReadSlice reads the first records of the slice, in the order of the log, and
// returns the position that it reached: the next read continues after it, and
// the slice is finished when it is Through. It may return no records before the
// end.
//
// As for any reader of the log, a closed range of positions bounds the work. A
// search by an index is bounded by the number of records instead.
func ReadSlice(ctx context.Context, q postgres.Queryer, s Slice, limit int) (records []Record, reached int64, err error) {
	reached = s.Through
	if len(s.IDs) == 0 && len(s.Subjects) == 0 && s.Through-s.After > slicePositions {
		reached = s.After + slicePositions
	}
	if reached <= s.After {
		return nil, s.After, nil
	}
	limit = min(limit, sliceRecords)
	part := s
	part.Through = reached
	where := part.conditions()
	upTo := where.Arg(limit + 1)
	const what = "read slice of the log"
	positions, more, err := postgres.Fitting(ctx, q, what, `SELECT position, `+recordSize+` FROM posthorn.outbox
		WHERE `+where.String()+` ORDER BY position LIMIT `+upTo, limit, sliceBytes, where.Args()...)
	if err != nil {
		return nil, s.After, err
	}
	if records, err = s.recordsIn(ctx, q, what, positions); err != nil {
		return nil, s.After, err
	}
	if more {
		reached = positions[len(positions)-1]
	}
	return records, reached, nil
}

// EndOfSlice reads the last records of the slice, in the order of the log, and
// passes them to each in parts of about sliceBytes.
func EndOfSlice(ctx context.Context, q postgres.Queryer, s Slice, limit int, each func([]Record) error) error {
	where := s.conditions()
	upTo := where.Arg(limit)
	const what = "read end of the log"
	positions, _, err := postgres.Fitting(ctx, q, what, `SELECT position, 0 FROM posthorn.outbox
		WHERE `+where.String()+` ORDER BY position DESC LIMIT `+upTo, limit, math.MaxInt, where.Args()...)
	if err != nil {
		return err
	}
	slices.Reverse(positions)
	for len(positions) > 0 {
		ahead := positions[:min(len(positions), sliceRecords)]
		part, _, err := postgres.Fitting(ctx, q, what, `SELECT position, `+recordSize+` FROM posthorn.outbox
			WHERE position = ANY ($1) ORDER BY position`, len(ahead), sliceBytes, pq.Array(ahead))
		if err != nil {
			return err
		}
		records, err := s.recordsIn(ctx, q, what, part)
		if err != nil {
			return err
		}
		if err := each(records); err != nil {
			return err
		}
		positions = positions[max(len(part), 1):]
	}
	return nil
}

// CountSlice counts the records of the slice.
func CountSlice(ctx context.Context, q postgres.Queryer, s Slice) (n int64, err error) {
	where := s.conditions()
	selects := s.selects()
	type counted struct {
		eventType string
		n         int64
	}
	counts, err := postgres.Collect(ctx, q, "count slice of the log", func(scan func(...any) error) (c counted, err error) {
		return c, scan(&c.eventType, &c.n)
	}, `SELECT type, count(*) FROM posthorn.outbox WHERE `+where.String()+` GROUP BY type`, where.Args()...)
	for _, c := range counts {
		if selects(c.eventType) {
			n += c.n
		}
	}
	return n, err
}

// ByIDs returns the events of the account with these ids, by id. If an id
// occurs more than once, which only a custom producer can cause, it returns the
// first one.
func ByIDs(ctx context.Context, q postgres.Queryer, account string, ids []string) (map[string]Record, error) {
	records, err := queryRecords(ctx, q, "look for events", `SELECT `+recordColumns+` FROM posthorn.outbox
		WHERE id = ANY ($1) AND account = $2 AND kind <> 'subscription' ORDER BY position DESC`, pq.Array(ids), account)
	if err != nil {
		return nil, err
	}
	found := make(map[string]Record, len(records))
	for _, r := range records {
		found[r.ID] = r
	}
	return found, nil
}

// Bounds returns the positions of a stretch of the log from one place to
// another, after the first and through the second, within the records settled
// now. The stretch is wide enough for records whose times are not quite in the
// order of their positions, so a caller that selects by time must also compare
// the times of the records.
func Bounds(ctx context.Context, q postgres.Queryer, from, to Place) (after, through int64, err error) {
	horizon, err := Horizon(ctx, q)
	if err != nil {
		return 0, 0, err
	}
	if after, err = from.After(ctx, q, horizon); err != nil {
		return 0, 0, err
	}
	if through, err = to.through(ctx, q, horizon); err != nil {
		return 0, 0, err
	}
	return after, max(through, after), nil
}
