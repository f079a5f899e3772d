//go:build unix

package process

import "syscall"

// FileLimit is how many files this process may have open, if known.
func FileLimit() (uint64, bool) {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0, false
	}
	return uint64(limit.Cur), true //nolint:unconvert // signed on some systems, and never negative
}
