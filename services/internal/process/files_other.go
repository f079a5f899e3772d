//go:build !unix

package process

// FileLimit is how many files this process may have open, if known.
func FileLimit() (uint64, bool) { return 0, false }
