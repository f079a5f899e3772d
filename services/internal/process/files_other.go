//go:build !unix

package process

// FileLimit is how many files this process may have open, where that is known.
func FileLimit() (uint64, bool) { return 0, false }
