// Package photos is the sample product of the README: likes of photos.
//
// A like is an event, so it has the API's promises for events; in addition, a
// user's second like of a photo has no effect. The like counts are a projection
// of the log, which can be discarded and rebuilt: a count is the sum of the
// likes and unlikes of the log, in their order and never below zero, whichever
// of several processes projects them. An unavailable database delays the
// counts, which is logged; reads of a count include the likes that are not
// projected yet.
package photos
