// Package replay delivers past events again: those of a Selection, or the dead
// letters among them (a redrive).
//
// It promises that a step begins its runs and moves the replay's position in
// one transaction, so that a relay that crashes between two steps repeats
// nothing and skips nothing; and that a delivery whose attempt is in flight is
// left alone. A replay that fails keeps its error and can be resumed.
package replay
