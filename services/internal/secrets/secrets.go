package secrets

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/google/uuid"
	"github.com/lib/pq"

	"posthorn/services/internal/idempotency"
	"posthorn/services/internal/postgres"
	"posthorn/services/internal/subscription"
)

// Keys seal stored values with one of several keys.
type Keys interface {
	Seal(plaintext, associatedData []byte) []byte
	Open(sealed, associatedData []byte) ([]byte, error)
	Current(sealed []byte) bool
}

// SealedWith counts the values sealed with a key.
type SealedWith struct {
	// KeyID is that of signing.Keyring; empty for a value that is not sealed.
	KeyID string
	// Secrets of subscriptions, and Answers stored for an Idempotency-Key.
	Secrets, Answers int64
}

// Seals counts the sealed values by key.
func Seals(ctx context.Context, q postgres.Queryer) ([]SealedWith, error) {
	return postgres.Collect(ctx, q, "count sealed values", func(scan func(...any) error) (s SealedWith, err error) {
		err = scan(&s.KeyID, &s.Secrets, &s.Answers)
		return s, err
	}, `
		SELECT CASE WHEN get_byte(sealed, 0) = 1 THEN encode(substring(sealed FROM 2 FOR 8), 'hex') ELSE '' END AS key, sum(secret), sum(1 - secret)
		FROM (
			SELECT secret AS sealed, 1 AS secret FROM posthorn.subscriptions WHERE octet_length(secret) > 0
			UNION ALL SELECT previous_secret, 1 FROM posthorn.subscriptions WHERE octet_length(previous_secret) > 0
			UNION ALL SELECT answer, 0 FROM posthorn.idempotent_requests WHERE octet_length(answer) > 0
		) all_sealed GROUP BY key ORDER BY key`)
}

// Resealed is the progress of Reseal.
type Resealed struct {
	// Resealed values, and those that no key of the ring opens.
	Resealed, Unopened int64
}

// resealAtOnce is how many values are resealed in one transaction.
const resealAtOnce = 500

// Reseal reseals every value of another key with the current key, and reports
// its progress after each batch. It may run alongside everything else:
// concurrent changes are kept. Killed at any moment, it leaves each value
// sealed with one key or the other, and can be run again.
func Reseal(ctx context.Context, db *sql.DB, keys Keys, progress func(Resealed)) (done Resealed, err error) {
	for _, kind := range []func(context.Context, *sql.DB, Keys, func(Resealed)) error{resealSubscriptions, resealAnswers} {
		err := kind(ctx, db, keys, func(more Resealed) {
			done.Resealed += more.Resealed
			done.Unopened += more.Unopened
			progress(done)
		})
		if err != nil {
			return done, postgres.Translate(err)
		}
	}
	return done, nil
}

func resealSubscriptions(ctx context.Context, db *sql.DB, keys Keys, progress func(Resealed)) error {
	for after := uuid.Nil.String(); ; {
		list, err := subscription.Query(ctx, db, `
			SELECT `+subscription.Columns+` FROM posthorn.subscriptions WHERE id > $1 AND status <> 'deleted' ORDER BY id LIMIT $2`, after, resealAtOnce)
		if err != nil || len(list) == 0 {
			return err
		}
		var (
			more                    Resealed
			ids                     []string
			oldSecrets, oldPrevious pq.ByteaArray
			newSecrets, newPrevious pq.ByteaArray
		)
		for _, s := range list {
			after = s.ID.UUID()
			old := s.Sealed
			switch resealed, err := s.Reseal(keys); {
			case err != nil:
				more.Unopened++
			case resealed:
				ids = append(ids, after)
				oldSecrets, newSecrets = append(oldSecrets, old.Secret), append(newSecrets, s.Sealed.Secret)
				oldPrevious, newPrevious = append(oldPrevious, bytesOrEmpty(old.Previous)), append(newPrevious, bytesOrEmpty(s.Sealed.Previous))
			}
		}
		// Update only unchanged values: a secret rotated meanwhile is already
		// sealed with its own key.
		result, err := db.ExecContext(ctx, `
			UPDATE posthorn.subscriptions s SET secret = g.new_secret, previous_secret = nullif(g.new_previous, '')
			FROM unnest($1::uuid[], $2::bytea[], $3::bytea[], $4::bytea[], $5::bytea[]) AS g(id, old_secret, old_previous, new_secret, new_previous)
			WHERE s.id = g.id AND s.secret = g.old_secret AND coalesce(s.previous_secret, '') = g.old_previous`,
			pq.Array(ids), oldSecrets, oldPrevious, newSecrets, newPrevious)
		if err != nil {
			return fmt.Errorf("reseal subscriptions: %w", err)
		}
		if more.Resealed, err = result.RowsAffected(); err != nil {
			return fmt.Errorf("reseal subscriptions: %w", err)
		}
		progress(more)
	}
}

func bytesOrEmpty(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

func resealAnswers(ctx context.Context, db *sql.DB, keys Keys, progress func(Resealed)) error {
	var last idempotency.Request
	for {
		rows, err := db.QueryContext(ctx, `
			SELECT account, key, answer FROM posthorn.idempotent_requests
			WHERE (account, key) > ($1, $2) ORDER BY account, key LIMIT $3`, last.Account, last.Key, resealAtOnce)
		if err != nil {
			return fmt.Errorf("read answers: %w", err)
		}
		var (
			more           Resealed
			accounts, kept []string
			old, resealed  pq.ByteaArray
			read           int
		)
		err = func() error {
			for rows.Next() {
				var sealed []byte
				if err := rows.Scan(&last.Account, &last.Key, &sealed); err != nil {
					return fmt.Errorf("read answer: %w", err)
				}
				read++
				if keys.Current(sealed) {
					continue
				}
				plain, err := keys.Open(sealed, last.AssociatedData())
				if err != nil {
					more.Unopened++
					continue
				}
				accounts, kept = append(accounts, last.Account), append(kept, last.Key)
				old, resealed = append(old, bytes.Clone(sealed)), append(resealed, keys.Seal(plain, last.AssociatedData()))
			}
			return rows.Err()
		}()
		if err := errors.Join(err, rows.Close()); err != nil {
			return fmt.Errorf("read answers: %w", err)
		}
		if read == 0 {
			return nil
		}
		result, err := db.ExecContext(ctx, `
			UPDATE posthorn.idempotent_requests r SET answer = g.resealed
			FROM unnest($1::text[], $2::text[], $3::bytea[], $4::bytea[]) AS g(account, key, old, resealed)
			WHERE r.account = g.account AND r.key = g.key AND r.answer = g.old`, pq.Array(accounts), pq.Array(kept), old, resealed)
		if err != nil {
			return fmt.Errorf("reseal answers: %w", err)
		}
		if more.Resealed, err = result.RowsAffected(); err != nil {
			return fmt.Errorf("reseal answers: %w", err)
		}
		progress(more)
	}
}
