// Package photos is the sample product of the README: photos that are liked.
//
// A like is an event, so what it promises is what the API promises of events,
// and beyond that that a user's second like of a photo is not one. The like
// counts are a projection of the log, which can be thrown away and made again
// from it: a count is what the likes and unlikes of the log come to, in their
// order and never below zero, whichever of several processes takes them in. A
// database that is unavailable delays the counts, which is logged; reads of a
// count include what has yet to be projected.
package photos
