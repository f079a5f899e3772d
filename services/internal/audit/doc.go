// Package audit compares the ledger with the log, and explains for one event why each subscription
// was or was not owed it.
//
// It promises that both results are as of the event's position, whatever the
// subscriptions are now: they are derived from the records of the log. Run
// finds lost, stuck, unexpected, misrouted and duplicated deliveries, and
// repairs them on request if it can. Errors are those of package postgres.
package audit
