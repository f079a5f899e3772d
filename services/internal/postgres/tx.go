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
// connection was lost during a commit, which may have happened.
var ErrOutcomeUnknown = errors.New("outcome of the commit is unknown")

// CommitTx is an InTx that distinguishes a failed commit from one with an unknown outcome.
func CommitTx(ctx context.Context, db *sql.DB, f func(tx *sql.Tx) error) error {
	if ok, err := joined(ctx, f); ok {
		return err
	}
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return Translate(fmt.Errorf("begin transaction: %w", err))
	}
	if err := f(tx); err != nil {
		_ = tx.Rollback() // if this fails too, the connection is dropped
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

// UnlessAnswered adds ErrOutcomeUnknown to the error of a commit, unless it is
// a response from Postgres. After any other error, including the context's end,
// the commit may have happened.
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
		_ = tx.Rollback() // if this fails too, the connection is dropped
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

// joined runs f in the transaction of WithTx; ok reports whether ctx has one.
func joined(ctx context.Context, f func(tx *sql.Tx) error) (ok bool, err error) {
	tx, ok := ctx.Value(txKey{}).(*sql.Tx)
	if !ok {
		return false, nil
	}
	return true, Translate(f(tx))
}
