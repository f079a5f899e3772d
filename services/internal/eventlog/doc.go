// Package eventlog is the log: the records of the outbox, in the order of their
// positions. It appends events, reads windows, slices and pages, keeps the
// partitions, and sets aside the records that cannot be forwarded.
//
// It promises that an append is committed as a whole or not at all, once for each id that its
// caller chose; that Horizon is a position up to which the log is settled, so that a reader that
// stays below it skips nothing; and that a row that cannot be read becomes a Record that says so,
// and stops no reader. Errors are those of package postgres, and ConflictError.
package eventlog
