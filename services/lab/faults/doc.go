// Package faults breaks a running Posthorn on purpose and counts what came of
// it: real processes, a Postgres and a RabbitMQ of its own, kills, cuts,
// stalls, wipes and operators' mistakes.
//
// A Producer writes down what the API accepted, a Sink writes down what
// subscribers got, and Check compares the two files, and the ledger, in the manner of
// Jepsen's total queue. A Scenario is one fault; Suite runs scenarios one after
// another and gives a Row for each, of which a table is made.
//
// It promises that a row passes only if nothing accepted was lost, corrupted,
// sent to somebody else or invented, if no more was sent twice than the fault
// explains, if no success is in the ledger that no subscriber gave, and if all
// of it came about without a hand on the system. It fails with what the
// check found; a fault that could not be brought about is an error, not a pass.
package faults
