// Package audit compares the ledger with the log, and explains for one event what
// each subscription was owed and why.
//
// It promises that both answers hold as of the event's position, whatever the
// subscriptions are now: they are derived from the records of the log. Run finds
// lost, stuck, unexpected, misrouted and duplicated deliveries, and repairs what
// it can on request. Errors are those of package postgres.
package audit
