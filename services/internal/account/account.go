// Package account identifies the actor of an operation, and its account.
//
// Every operation of package operate takes an Actor, and every query is bound
// to its account: an id of another account is not found, like one that does not
// exist.
package account

import "posthorn/events"

// Actor is the caller of an operation.
type Actor struct {
	// Account that the actor acts for.
	Account string
}

// Operator acts for the only account.
func Operator() Actor { return Actor{Account: events.DefaultAccount} }
