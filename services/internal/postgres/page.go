package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
)

// PageBytes is the approximate limit of stored bytes in one page of a list. A
// page always has at least one item, however large.
const PageBytes = 1 << 20

// Page is one page of a list. More reports whether the list continues.
type Page[T any] struct {
	Items []T
	More  bool
}

// pageQuery limits a query to the rows of the first page: at most limit, and as
// many as fit into PageBytes by the column page_size. The server has to apply
// the bound: a driver that stops early still receives the rest. After the
// query's own columns each row has its rank, the bytes so far and the number of
// rows found; readPage reads them. The limit and the bytes are the arguments
// after those of the query.
func pageQuery(query, order string, args int) string {
	most, bytes := "$"+strconv.Itoa(args+1), "$"+strconv.Itoa(args+2)
	return `
		SELECT * FROM (
			SELECT found.*, row_number() OVER place AS page_rank, sum(page_size::bigint) OVER place AS page_bytes, count(*) OVER () AS page_found
			FROM (` + query + ` ORDER BY ` + order + ` LIMIT ` + most + `::bigint + 1) found
			WINDOW place AS (ORDER BY ` + order + ` ROWS UNBOUNDED PRECEDING)
		) page
		WHERE page_rank = 1 OR (page_rank <= ` + most + `::bigint AND page_bytes <= ` + bytes + `::bigint)
		ORDER BY page_rank`
}

// ReadPage runs a query through pageQuery. read reads one row without
// page_size, which has to be the query's last column.
func ReadPage[T any](ctx context.Context, q Queryer, what, query, order string, limit int, args []any,
	read func(scan func(...any) error) (T, error),
) (page Page[T], err error) {
	rows, err := q.QueryContext(ctx, pageQuery(query, order, len(args)), append(slices.Clone(args), limit, PageBytes)...)
	if err != nil {
		return page, Translate(fmt.Errorf("%s: %w", what, err))
	}
	defer func() { err = Translate(errors.Join(err, rows.Close())) }()
	var (
		rank, found int64
		size, bytes any
	)
	for rows.Next() {
		item, err := read(func(dest ...any) error {
			return rows.Scan(append(dest, &size, &rank, &bytes, &found)...)
		})
		if err != nil {
			return Page[T]{}, err
		}
		page.Items = append(page.Items, item)
	}
	if err := rows.Err(); err != nil {
		return Page[T]{}, fmt.Errorf("%s: %w", what, err)
	}
	page.More = found > rank
	return page, nil
}

// Fitting returns the first positions that a query of positions and sizes
// finds: at most limit, and as many as fit into the given bytes. more reports
// whether there are others.
func Fitting(ctx context.Context, q Queryer, what, query string, limit, maxBytes int, args ...any) (positions []int64, more bool, err error) {
	rows, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, false, Translate(fmt.Errorf("%s: %w", what, err))
	}
	defer func() { err = Translate(errors.Join(err, rows.Close())) }()
	for bytes := 0; rows.Next(); {
		var (
			position int64
			size     int
		)
		if err := rows.Scan(&position, &size); err != nil {
			return nil, false, fmt.Errorf("%s: %w", what, err)
		}
		if bytes += size; len(positions) == limit || bytes > maxBytes && len(positions) > 0 {
			more = true
			break
		}
		positions = append(positions, position)
	}
	if err := rows.Err(); err != nil {
		return nil, false, fmt.Errorf("%s: %w", what, err)
	}
	return positions, more, nil
}
