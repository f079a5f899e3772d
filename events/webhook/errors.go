package webhook

import "errors"

// Returned by Verify.
var (
	// ErrMissingHeader: one of the three headers is absent or empty.
	ErrMissingHeader = errors.New("webhook header missing")
	// ErrInvalidHeader: a header appears twice, or does not follow the standard.
	ErrInvalidHeader = errors.New("webhook header invalid")
	// ErrTooOld: the timestamp is further in the past than the tolerance,
	// because of a replayed request or a wrong clock.
	ErrTooOld = errors.New("webhook timestamp too old")
	// ErrTooNew: the timestamp is further in the future than the tolerance.
	ErrTooNew = errors.New("webhook timestamp too new")
	// ErrNoMatch: no signature was made with any of the secrets for this id,
	// timestamp and body.
	ErrNoMatch = errors.New("webhook signature matches no secret")
	// ErrNoSecret: the caller gave no usable secret.
	ErrNoSecret = errors.New("no webhook secret given")
)

// ErrInvalidSecret is returned by ParseSecret for a text that is not a secret.
// It never carries the text.
var ErrInvalidSecret = errors.New("webhook secret invalid")
