package eventlog

import (
	"context"
	"fmt"

	"posthorn/services/internal/postgres"
)

// RelayPosition is the position up to which the log has been forwarded.
func RelayPosition(ctx context.Context, q postgres.Queryer) (int64, error) {
	var position int64
	err := q.QueryRowContext(ctx, `SELECT position FROM posthorn.readers WHERE name = 'relay'`).Scan(&position)
	if err != nil {
		return 0, postgres.Translate(fmt.Errorf("read the relay's position: %w", err))
	}
	return position, nil
}

// ControlRecords are the records of the log above after, up to the horizon,
// that are not events.
func ControlRecords(ctx context.Context, q postgres.Queryer, after, horizon int64) ([]Record, error) {
	return queryRecords(ctx, q, "read control records", `
		SELECT `+recordColumns+`
		FROM posthorn.outbox WHERE kind <> 'event' AND position > $1 AND position <= $2 ORDER BY position`, after, horizon)
}
