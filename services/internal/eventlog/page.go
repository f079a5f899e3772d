package eventlog

import (
	"context"

	"github.com/lib/pq"

	"posthorn/services/internal/postgres"
)

// recordSize is the approximate size of a record. The length of data is known
// without reading it.
const recordSize = `octet_length(data) + octet_length(metadata::text) + octet_length(attributes::text) + octet_length(subject) + 256`

// recordsOfPage reads the records that a query of positions and sizes finds, as
// many as fit into a page. The query runs first, so that no data is read beyond
// the page.
func recordsOfPage(ctx context.Context, q postgres.Queryer, what, query string, limit int, args ...any) (page postgres.Page[Record], err error) {
	positions, more, err := postgres.Fitting(ctx, q, what, query, limit, postgres.PageBytes, args...)
	if err != nil {
		return page, err
	}
	if page.Items, err = recordsAt(ctx, q, what, positions); err != nil {
		return postgres.Page[Record]{}, err
	}
	page.More = more
	return page, nil
}

// recordsAt returns the records at the positions, in the order of the argument.
func recordsAt(ctx context.Context, q postgres.Queryer, what string, positions []int64) ([]Record, error) {
	if len(positions) == 0 {
		return nil, nil
	}
	return queryRecords(ctx, q, what, `
		SELECT `+recordColumns+` FROM posthorn.outbox JOIN unnest($1::bigint[]) WITH ORDINALITY AS page(position, place) USING (position)
		ORDER BY place`, pq.Array(positions))
}
