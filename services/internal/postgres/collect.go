package postgres

import (
	"context"
	"errors"
	"fmt"
)

// Collect runs a query and reads each of its rows with read. what describes the
// operation in errors.
func Collect[T any](ctx context.Context, q Queryer, what string, read func(scan func(...any) error) (T, error), query string, args ...any) (list []T, err error) {
	rows, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, Translate(fmt.Errorf("%s: %w", what, err))
	}
	defer func() { err = Translate(errors.Join(err, rows.Close())) }()
	for rows.Next() {
		item, err := read(rows.Scan)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", what, err)
		}
		list = append(list, item)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	return list, nil
}
