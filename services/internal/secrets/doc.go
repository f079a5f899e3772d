// Package secrets counts what is sealed at rest, by the key that sealed it, and
// seals it again with the key that seals now.
//
// It promises that a value that changes meanwhile keeps its change, and that a
// Reseal that is stopped at any moment leaves each value sealed with one key or
// the other, and can be run again.
package secrets
