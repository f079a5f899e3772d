//go:build !unix

package delivery

func fileLimit() (uint64, bool) { return 0, false }
