// Package idempotency carries out a request with an Idempotency-Key once.
//
// It promises that the request's own work and the record of its answer are one
// transaction, so that no crash leaves one without the other, and that the same
// request with the same key gets the same answer for a day. Of two at the same
// time the second gets ErrKeyBusy; another request with the key gets ErrKeyReused.
package idempotency
