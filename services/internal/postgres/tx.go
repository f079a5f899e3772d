package postgres

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/lib/pq"

	"posthorn/services/internal/failpoint"
)

// ErrOutcomeUnknown is wrapped, together with ErrUnavailable, when the
// connection was lost while a commit was under way: it may have happened.
var ErrOutcomeUnknown = errors.New("whether it was committed is unknown")

// CommitTx is InTx that tells a commit that failed from one that may not have.
func CommitTx(ctx context.Context, db *sql.DB, f func(tx *sql.Tx) error) error {
	if ok, err := joined(ctx, f); ok {
		return err
	}
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return Translate(fmt.Errorf("begin transaction: %w", err))
	}
	if err := f(tx); err != nil {
		_ = tx.Rollback() // the connection is dropped where this fails too
		return Translate(err)
	}
	failpoint.Hit("append.before_commit")
	err = tx.Commit()
	if err == nil {
		failpoint.Hit("append.after_commit")
		return nil
	}
	return UnlessAnswered(fmt.Errorf("commit: %w", err))
}

// UnlessAnswered says of a commit that failed whether it may have happened: an
// answer from Postgres settles it. Anything else, the context's end included,
// leaves open whether the commit arrived.
func UnlessAnswered(err error) error {
	var answer *pq.Error
	if errors.As(err, &answer) && answer.Code.Class() != "57" && answer.Code.Class() != "08" {
		return Translate(err)
	}
	return fmt.Errorf("%w: %w: %w", ErrUnavailable, ErrOutcomeUnknown, err)
}

// InTx runs f in a transaction that commits when f returns nil; within Once,
// in its transaction.
func InTx(ctx context.Context, db *sql.DB, f func(tx *sql.Tx) error) error {
	if ok, err := joined(ctx, f); ok {
		return err
	}
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return Translate(fmt.Errorf("begin transaction: %w", err))
	}
	if err := f(tx); err != nil {
		_ = tx.Rollback() // the connection is dropped where this fails too
		return Translate(err)
	}
	if err := tx.Commit(); err != nil {
		return Translate(fmt.Errorf("commit: %w", err))
	}
	return nil
}

type txKey struct{}

// WithTx returns a context in which InTx and CommitTx run in a transaction that
// the caller commits.
func WithTx(ctx context.Context, tx *sql.Tx) context.Context {
	return context.WithValue(ctx, txKey{}, tx)
}

// joined runs f in the transaction of WithTx, if ctx has one: ok says so.
func joined(ctx context.Context, f func(tx *sql.Tx) error) (ok bool, err error) {
	tx, ok := ctx.Value(txKey{}).(*sql.Tx)
	if !ok {
		return false, nil
	}
	return true, Translate(f(tx))
}
