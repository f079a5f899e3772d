package operate

import (
	"context"
	"errors"
	"fmt"

	"posthorn/services/internal/account"
	"posthorn/services/internal/idempotency"
)

// ErrSealedAnswer is returned by Once if a request was carried out before and
// its response cannot be opened with the current keys.
var ErrSealedAnswer = errors.New("the response of the first request cannot be opened")

// Answer is the response to a request.
type Answer struct {
	Status  int
	Content []byte
}

// Once carries out a request under the actor's key, or returns the response of an equal earlier
// one, and replayed. Changes that do makes through operations with its context are committed
// together with the response, or not at all: an error of do rolls them back.
func (o *Operations) Once(ctx context.Context, by account.Actor, key string, fingerprint []byte, do func(context.Context) (Answer, error)) (answer Answer, replayed bool, err error) {
	request := idempotency.Request{Account: by.Account, Key: key, Fingerprint: fingerprint}
	kept, replayed, err := idempotency.Once(ctx, o.db, request, func(ctx context.Context) (idempotency.Answer, error) {
		if answer, err = do(ctx); err != nil {
			return idempotency.Answer{}, err
		}
		return idempotency.Answer{Status: answer.Status, Sealed: o.keys.Seal(answer.Content, request.AssociatedData())}, nil
	})
	if err != nil || !replayed {
		return answer, false, err
	}
	content, err := o.keys.Open(kept.Sealed, request.AssociatedData())
	if err != nil {
		return Answer{}, true, fmt.Errorf("%w: %w", ErrSealedAnswer, err)
	}
	return Answer{Status: kept.Status, Content: content}, true, nil
}

// ForgetRequests deletes the keys and responses that are older than
// idempotency.Keep, and returns how many.
func (o *Operations) ForgetRequests(ctx context.Context) (int64, error) {
	return idempotency.Forget(ctx, o.db)
}
