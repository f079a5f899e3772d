// Package ledger stores the ledger: the deliveries owed to each subscription,
// and the attempts made for each delivery.
//
// It promises that a finished delivery stays finished unless a new run begins;
// that one of several claims on an attempt is granted; that recording an attempt
// again changes nothing; and that writers that share rows wait for each other in
// key order instead of deadlocking. Errors are those of package postgres.
package ledger
