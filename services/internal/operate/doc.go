// Package operate has the verbs that the API, the command line and other front
// ends share. A verb may need several of the nouns' packages, which do not know
// one another.
//
// It promises that a verb that changes something does so in one transaction, or
// names its crash window, and that it reaches nothing but what is the actor's:
// an id of another account is not found. Errors are those of the packages that
// it uses.
package operate
