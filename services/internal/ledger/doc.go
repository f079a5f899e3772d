// Package ledger is the ledger: for each subscription the events that it is owed,
// and for each of these deliveries the attempts that were made.
//
// It promises that a delivery that is finished stays finished unless a new run
// begins; that of several claims on one attempt one is granted; that recording an
// attempt again changes nothing; and that writers which share rows wait for each
// other in the order of the key instead of deadlocking. Errors are those of
// package postgres.
package ledger
