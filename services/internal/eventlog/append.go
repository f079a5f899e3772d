package eventlog

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"posthorn/events"
	"posthorn/outbox"
	"posthorn/services/internal/failpoint"
	"posthorn/services/internal/postgres"
)

// Appended is the result for one event of a group of unrelated events.
type Appended struct {
	outbox.Result
	Err error
}

// appendAlone appends in a statement that is its own transaction, which saves
// two round trips. It uses a dedicated connection: the pool would repeat a
// statement whose connection broke before the response, and that would append
// twice.
func appendAlone(ctx context.Context, db *sql.DB, batch []events.Event) ([]outbox.Result, error) {
	conn, err := db.Conn(ctx)
	if err != nil {
		return nil, postgres.Translate(fmt.Errorf("connect: %w", err))
	}
	defer func() { _ = conn.Close() }() // it goes back to the pool
	failpoint.Hit("append.before_commit")
	results, err := outbox.AppendEach(ctx, conn, batch...)
	switch {
	case err == nil:
		failpoint.Hit("append.after_commit")
		return results, nil
	case postgres.Unavailable(err), ctx.Err() != nil:
		return nil, postgres.UnlessAnswered(fmt.Errorf("append group: %w", err))
	}
	return nil, fmt.Errorf("append group: %w", err)
}

// AppendGroup appends unrelated events in one commit. An event that Postgres
// refuses fails alone.
func AppendGroup(ctx context.Context, db *sql.DB, batch []events.Event) ([]Appended, error) {
	return EachAlone(batch, func(batch []events.Event) ([]Appended, error) {
		results, err := appendAlone(ctx, db, batch)
		if err != nil {
			return nil, err
		}
		out := make([]Appended, len(batch))
		for i, r := range results {
			out[i].Result = r
			if r.Outcome == outbox.Conflict {
				out[i].Err = outbox.ErrConflict
			}
		}
		return out, nil
	})
}

// EachAlone runs f for the whole batch. If that fails for a reason other than
// an unavailable database, it runs f again for each item, so that one item
// cannot fail the others.
func EachAlone[In any](batch []In, f func([]In) ([]Appended, error)) ([]Appended, error) {
	out, err := f(batch)
	if err == nil || len(batch) == 1 || errors.Is(err, postgres.ErrUnavailable) || errors.Is(err, context.DeadlineExceeded) {
		return out, err
	}
	out = make([]Appended, 0, len(batch))
	for i := range batch {
		one, err := f(batch[i : i+1])
		if err != nil {
			one = []Appended{{Err: err}}
		}
		out = append(out, one...)
	}
	return out, nil
}

// ConflictError is returned by AppendBatch and names the conflicting events; it
// is an outbox.ErrConflict.
type ConflictError struct{ Indexes []int }

func (e *ConflictError) Error() string {
	return fmt.Sprintf("events %v: %v", e.Indexes, outbox.ErrConflict)
}

// Unwrap makes it an outbox.ErrConflict.
func (e *ConflictError) Unwrap() error { return outbox.ErrConflict }

// AppendBatch appends all of the events or none. With a key, the same batch
// under the same key is appended once, and another one is an
// outbox.ErrConflict; its events without an id get one derived from the key.
func AppendBatch(ctx context.Context, db *sql.DB, account, key string, batch []events.Event) ([]outbox.Result, error) {
	if key == "" && !slices.ContainsFunc(batch, func(e events.Event) bool { return e.ID != "" || e.Source != "" }) {
		return appendAlone(ctx, db, batch) // nothing can conflict, so there is nothing to roll back
	}
	var results []outbox.Result
	err := postgres.CommitTx(ctx, db, func(tx *sql.Tx) error {
		if key != "" {
			if err := claimBatchKeyTx(ctx, tx, account, key, batch); err != nil {
				return err
			}
			named := make([]events.Event, len(batch))
			for i, e := range batch {
				if e.ID == "" {
					e.ID = fmt.Sprintf("%s-%d", key, i)
				}
				named[i] = e
			}
			batch = named
		}
		var err error
		if results, err = outbox.AppendEach(ctx, tx, batch...); err != nil {
			return fmt.Errorf("append batch: %w", err)
		}
		var conflict ConflictError
		for i, r := range results {
			if r.Outcome == outbox.Conflict {
				conflict.Indexes = append(conflict.Indexes, i)
			}
		}
		if len(conflict.Indexes) > 0 {
			return &conflict
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return results, nil
}

// claimBatchKeyTx stores the digest of the batch under its key. No event id can
// contain a space, so the two kinds of keys stay apart.
func claimBatchKeyTx(ctx context.Context, tx *sql.Tx, account, key string, batch []events.Event) error {
	h := sha256.New()
	for _, e := range batch {
		occurred := ""
		if !e.OccurredAt.IsZero() {
			occurred = e.OccurredAt.UTC().String()
		}
		parts := []string{e.ID, e.Type, e.Subject, string(e.Data), occurred}
		if all := e.Attributes(); all != nil {
			text, err := json.Marshal(all)
			if err != nil {
				return fmt.Errorf("encode attributes: %w", err)
			}
			parts = append(parts, string(text))
		}
		for _, part := range parts {
			_, _ = h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(part)))) // a hash never fails
			_, _ = h.Write([]byte(part))
		}
	}
	key = "batch " + key
	if _, err := tx.ExecContext(ctx, `
		INSERT INTO posthorn.idempotency_keys (account, key, digest) VALUES ($1, $2, $3)
		ON CONFLICT DO NOTHING`, account, key, h.Sum(nil)); err != nil {
		return fmt.Errorf("claim key of batch: %w", err)
	}
	var same bool
	if err := tx.QueryRowContext(ctx, `
		SELECT digest = $3 FROM posthorn.idempotency_keys WHERE account = $1 AND key = $2`,
		account, key, h.Sum(nil)).Scan(&same); err != nil {
		return fmt.Errorf("compare key of batch: %w", err)
	}
	if !same {
		return fmt.Errorf("key of batch: %w", outbox.ErrConflict)
	}
	return nil
}
