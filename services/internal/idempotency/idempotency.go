package idempotency

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"posthorn/services/internal/postgres"
)

// Keep is how long the response to an idempotent request is kept.
const Keep = 24 * time.Hour

var (
	// ErrKeyBusy is returned by Once while another request with the key is in
	// flight.
	ErrKeyBusy = errors.New("a request with this key is in flight")
	// ErrKeyReused is returned by Once when the key was used with another
	// request.
	ErrKeyReused = errors.New("the key was used with another request")
)

// Request is a request under a key that its client chose.
type Request struct {
	Account, Key string
	// Fingerprint is equal for equal requests.
	Fingerprint []byte
}

// AssociatedData binds the sealed response to the request.
func (r Request) AssociatedData() []byte {
	return []byte("idempotent request " + r.Account + "/" + r.Key)
}

// Answer is the response to a request. Sealed is opaque here.
type Answer struct {
	Status int
	Sealed []byte
}

// idempotencyLocks is the class of the advisory locks of keys. These use two
// keys, which distinguishes them from those of the log's appenders.
const idempotencyLocks = 0x5048

// Once carries out a request, unless it was carried out before: then it returns
// that response, and replayed.
//
// The request's own work and its row here are one transaction, which do finds
// in its context. So a crash cannot leave one without the other: before the
// commit nothing has happened and the lock on the key ends with the connection,
// after it the response is stored. An error of do rolls its work back and frees
// the key.
func Once(ctx context.Context, db *sql.DB, r Request, do func(ctx context.Context) (Answer, error)) (a Answer, replayed bool, err error) {
	err = postgres.CommitTx(ctx, db, func(tx *sql.Tx) error {
		var free bool
		if err := tx.QueryRowContext(ctx, `SELECT pg_try_advisory_xact_lock($1, hashtext($2 || '/' || $3))`,
			idempotencyLocks, r.Account, r.Key).Scan(&free); err != nil {
			return fmt.Errorf("lock key: %w", err)
		}
		if !free {
			return ErrKeyBusy
		}
		// In a statement after the lock, so that it sees the commit of the
		// previous holder.
		var fingerprint []byte
		err := tx.QueryRowContext(ctx, `
			SELECT fingerprint, status, answer FROM posthorn.idempotent_requests
			WHERE account = $1 AND key = $2 AND created_at > clock_timestamp() - $3::interval`,
			r.Account, r.Key, postgres.Interval(Keep)).Scan(&fingerprint, &a.Status, &a.Sealed)
		switch {
		case err == nil && bytes.Equal(fingerprint, r.Fingerprint):
			replayed = true
			return nil
		case err == nil:
			return ErrKeyReused
		case !errors.Is(err, sql.ErrNoRows):
			return fmt.Errorf("look for key: %w", err)
		}
		if a, err = do(postgres.WithTx(ctx, tx)); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `
			INSERT INTO posthorn.idempotent_requests (account, key, fingerprint, status, answer) VALUES ($1, $2, $3, $4, $5)
			ON CONFLICT (account, key) DO UPDATE SET fingerprint = excluded.fingerprint, status = excluded.status,
			    answer = excluded.answer, created_at = excluded.created_at`,
			r.Account, r.Key, r.Fingerprint, a.Status, a.Sealed); err != nil {
			return fmt.Errorf("keep answer: %w", err)
		}
		return nil
	})
	if err != nil {
		return Answer{}, false, err
	}
	return a, replayed, nil
}

// Forget deletes requests that are older than Keep, and returns how many.
func Forget(ctx context.Context, q postgres.Queryer) (forgotten int64, err error) {
	const batch = 1000
	for {
		result, err := q.ExecContext(ctx, `
			DELETE FROM posthorn.idempotent_requests WHERE (account, key) IN (
				SELECT account, key FROM posthorn.idempotent_requests
				WHERE created_at < clock_timestamp() - $1::interval ORDER BY created_at LIMIT $2 FOR UPDATE SKIP LOCKED)`,
			postgres.Interval(Keep), batch)
		if err != nil {
			return forgotten, postgres.Translate(fmt.Errorf("forget requests: %w", err))
		}
		n, err := result.RowsAffected()
		if err != nil {
			return forgotten, fmt.Errorf("forget requests: %w", err)
		}
		if forgotten += n; n < batch {
			return forgotten, nil
		}
	}
}
