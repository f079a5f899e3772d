// Package faults breaks a running Posthorn deliberately and counts the
// consequences: real processes, private Postgres and RabbitMQ servers, kills,
// cuts, stalls, wipes and operators' mistakes.
//
// A Producer records the events that the API accepted, a Sink records the requests that subscribers
// got, and Check compares the two files and the ledger, in the manner of Jepsen's total queue. A
// Scenario is one fault; Suite runs scenarios one after another and returns a Row for each, for the
// table.
//
// It promises that a row passes only if no accepted event was lost, corrupted,
// misrouted or invented, if no more were sent twice than the fault explains, if
// the ledger has no success without a subscriber's 2xx, and if the system
// recovered without intervention. It fails with the findings of the check; a
// fault that could not be injected is an error, not a pass.
package faults
