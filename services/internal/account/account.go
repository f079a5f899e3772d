// Package account says who acts, and for whom.
//
// An Actor is passed to every verb of package operate, and every query is bound
// to its account: an id of another account is not found, like one that does not
// exist.
package account

import "posthorn/events"

// Actor is who asks for something.
type Actor struct {
	// Account that the actor acts for.
	Account string
}

// Operator acts for the one account that there is.
func Operator() Actor { return Actor{Account: events.DefaultAccount} }
