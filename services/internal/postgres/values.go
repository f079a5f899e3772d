package postgres

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"time"

	"github.com/lib/pq"
)

// Interval is a duration as a Postgres interval, to the microsecond.
func Interval(d time.Duration) string { return fmt.Sprintf("%d microseconds", d.Microseconds()) }

// StringMapJSON is a map as a value of jsonb.
func StringMapJSON(headers map[string]string) string {
	if len(headers) == 0 {
		return "{}"
	}
	b, err := json.Marshal(headers)
	if err != nil {
		return "{}" // a map of strings always encodes
	}
	return string(b)
}

// DecodeStringMap never fails: a producer that wrote a value other than text
// must not stop the log, so the value is kept as its JSON.
func DecodeStringMap(b []byte) map[string]string {
	if len(b) == 0 || string(b) == "{}" {
		return nil
	}
	var values map[string]json.RawMessage
	if json.Unmarshal(b, &values) != nil {
		return nil
	}
	metadata := make(map[string]string, len(values))
	for k, v := range values {
		var text string
		if json.Unmarshal(v, &text) != nil {
			text = string(v)
		}
		metadata[k] = text
	}
	return metadata
}

// TextsOrNull is an array, or NULL for no texts.
func TextsOrNull(texts []string) any {
	if len(texts) == 0 {
		return nil
	}
	return pq.Array(texts)
}

// PositionsOrNull is an array, or NULL for no positions.
func PositionsOrNull(positions []int64) any {
	if len(positions) == 0 {
		return nil
	}
	return pq.Array(positions)
}

// TimeOrNull is NULL for the zero time.
func TimeOrNull(t time.Time) sql.NullTime { return sql.NullTime{Time: t, Valid: !t.IsZero()} }

// Now is the time by the database's clock.
func Now(ctx context.Context, q Queryer) (now time.Time, err error) {
	if err := q.QueryRowContext(ctx, `SELECT clock_timestamp()`).Scan(&now); err != nil {
		return now, Translate(fmt.Errorf("read the time: %w", err))
	}
	return now, nil
}
