// Package secrets counts the values sealed at rest, by the key that sealed
// them, and reseals them with the current key.
//
// It promises that a value that changes meanwhile keeps its change, and that a
// Reseal that stops at any moment leaves each value sealed with one key or the
// other, and can be run again.
package secrets
