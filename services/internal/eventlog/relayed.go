package eventlog

import (
	"context"
	"fmt"
	"slices"

	"github.com/lib/pq"

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

// RecordsAt reads the records at the positions, in their order, up to about maxBytes of data but at
// least one. It returns those that the log has, and the position up to which it has looked.
func RecordsAt(ctx context.Context, q postgres.Queryer, positions []int64, maxBytes int) (map[int64]Record, int64, error) {
	list, err := queryRecords(ctx, q, "read records", `
		SELECT `+recordColumns+` FROM (
			SELECT o.*, sum(octet_length(data)) OVER (ORDER BY position) - octet_length(data) AS before
			FROM posthorn.outbox o WHERE position = ANY ($1)
		) o WHERE before < $2 ORDER BY position`, pq.Array(positions), maxBytes)
	if err != nil {
		return nil, 0, err
	}
	records, bytes := make(map[int64]Record, len(list)), 0
	for i := range list {
		records[list[i].Position] = list[i]
		bytes += len(list[i].Data)
	}
	if bytes >= maxBytes {
		return records, list[len(list)-1].Position, nil
	}
	return records, slices.Max(positions), nil
}
