package postgres

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/lib/pq"

	"posthorn/events"
)

// Slice selects records of the log; the zero value of a field selects all.
type Slice struct {
	// After and Through bound the positions; Through is included and, to miss
	// nothing that commits late, no higher than the horizon.
	After, Through int64
	Account        string
	Kinds          []Kind
	Types          []events.Pattern
	Subjects       []string
}

// ReadSlice reads the first records of the slice, or with last the last ones,
// in the order of the log.
func ReadSlice(ctx context.Context, q Queryer, s Slice, last bool, limit int) (records []Record, err error) {
	where, args := []string{"position > $1", "position <= $2"}, []any{s.After, s.Through}
	and := func(condition string, arg any) {
		args = append(args, arg)
		where = append(where, strings.ReplaceAll(condition, "?", "$"+strconv.Itoa(len(args))))
	}
	if s.Account != "" {
		and("account = ?", s.Account)
	}
	if len(s.Kinds) > 0 {
		and("kind = ANY (?)", pq.Array(s.Kinds))
	}
	if len(s.Subjects) > 0 {
		and("subject = ANY (?) AND subject <> ''", pq.Array(s.Subjects))
	}
	if len(s.Types) > 0 {
		if slices.ContainsFunc(s.Types, func(p events.Pattern) bool { return !p.Exact() }) {
			and("EXISTS (SELECT 1 FROM unnest(?::text[]) AS p WHERE posthorn.type_matches(p, type))", pq.Array(s.Types))
		} else {
			and("type = ANY (?)", pq.Array(s.Types))
		}
	}
	order := "ASC"
	if last {
		order = "DESC"
	}
	args = append(args, limit)
	records, err = queryRecords(ctx, q, "read slice of the log", `SELECT `+recordColumns+` FROM posthorn.outbox
		WHERE `+strings.Join(where, " AND ")+` ORDER BY position `+order+` LIMIT $`+strconv.Itoa(len(args)), args...)
	if err != nil {
		return nil, err
	}
	if last {
		slices.Reverse(records)
	}
	return records, nil
}

// PositionBefore is the last position before those that were recorded at the
// time or later; 0 where there is none.
func PositionBefore(ctx context.Context, q Queryer, at time.Time) (int64, error) {
	position, err := positionSince(ctx, q, at)
	return position - 1, err
}
