// Package target decides which URLs a subscription may have, and which addresses may be connected
// to.
//
// It promises that a host has one name in DNS, TLS, the Host header and the API, and that the Guard
// refuses every address that is not a plain public unicast address of another machine, on each
// connect, unless the operator allowed it. ErrInvalidURL and ErrBlocked reveal nothing about the
// internal network.
package target
