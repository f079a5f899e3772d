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
	// partitionsAhead of the current one: 30 million events.
	partitionsAhead = 3
	// partitionsEvery is much shorter than the time to fill a partition.
	partitionsEvery = time.Minute
)

// EnsurePartitions creates the missing partitions that the log and the ledger
// will need next, and returns how many it created.
func EnsurePartitions(ctx context.Context, q postgres.Queryer) (int, error) {
	var made int
	err := q.QueryRowContext(ctx, `
		SELECT posthorn.ensure_partitions(last_value, $1) FROM posthorn.outbox_position`, partitionsAhead).Scan(&made)
	if err != nil {
		return 0, postgres.Translate(fmt.Errorf("create partitions: %w", err))
	}
	return made, nil
}

// KeepPartitions calls EnsurePartitions periodically until ctx ends. Any number
// of processes may do so.
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
				logger.Warn("partitions cannot be created: appending fails when the current ones are full", "error", err)
			case made > 0:
				logger.Info("partitions created", "count", made)
			}
			select {
			case <-ticker.C:
			case <-ctx.Done():
				return nil
			}
		}
	}
}
