package eventlog

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"time"

	"posthorn/services/internal/postgres"
)

const (
	// partitionsAhead of the one that is being written to: 30 million events.
	partitionsAhead = 3
	// partitionsEvery is far more often than one partition can be filled.
	partitionsEvery = time.Minute
)

// EnsurePartitions makes the partitions that the log and the ledger will need
// next, where they are missing, and returns how many it made.
func EnsurePartitions(ctx context.Context, q postgres.Queryer) (int, error) {
	var made int
	err := q.QueryRowContext(ctx, `
		SELECT posthorn.ensure_partitions(last_value, $1) FROM posthorn.outbox_position`, partitionsAhead).Scan(&made)
	if err != nil {
		return 0, postgres.Translate(fmt.Errorf("make partitions: %w", err))
	}
	return made, nil
}

// KeepPartitions calls EnsurePartitions now and then until ctx ends. Any
// number of processes may do so.
func KeepPartitions(db *sql.DB, logger *slog.Logger) func(ctx context.Context) error {
	return func(ctx context.Context) error {
		ticker := time.NewTicker(partitionsEvery)
		defer ticker.Stop()
		for {
			made, err := EnsurePartitions(ctx, db)
			switch {
			case ctx.Err() != nil:
				return nil
			case err != nil:
				logger.Warn("partitions cannot be made: appending fails when the present ones are full", "error", err)
			case made > 0:
				logger.Info("partitions were made", "count", made)
			}
			select {
			case <-ticker.C:
			case <-ctx.Done():
				return nil
			}
		}
	}
}
