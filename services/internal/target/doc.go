// Package target says which URLs a subscription may have, and which addresses may
// be connected to for one.
//
// It promises that a host has one name for DNS, TLS, the Host header and what is
// shown, and that the Guard refuses every address that is not a plain public
// unicast address of another machine, on each connect, unless the operator allowed
// it. ErrInvalidURL and ErrBlocked tell nothing of what is inside.
package target
