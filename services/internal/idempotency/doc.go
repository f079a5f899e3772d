// Package idempotency carries out a request with an Idempotency-Key once.
//
// It promises that the request's own work and the record of its response are one transaction, so
// that no crash leaves one without the other, and that the same request with the same key gets the
// same response for a day. Of two concurrent requests the second gets ErrKeyBusy; another request
// with the key gets ErrKeyReused.
package idempotency
