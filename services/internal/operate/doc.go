// Package operate has the operations that the API, the command line and other
// front ends share. An operation may need several of the nouns' packages, which
// do not import each other.
//
// It promises that an operation makes its changes in one transaction, or names
// its crash window, and that it reaches only the actor's account: an id of
// another account is not found. Errors are those of the packages that it uses.
package operate
