package delivery

import "posthorn/services/internal/process"

const (
	// mostInFlight is the capacity where files are no matter: a request in
	// flight takes some 50 KB of memory.
	mostInFlight  = 4096
	leastInFlight = 4
)

// Capacity is how many requests a process may have in flight and how many
// connections it may keep open besides. Where no number is given it follows
// from how many files the process may open: a quarter, for each request may
// take two more while its host's name is looked up, and half of that.
func Capacity(inFlight int) (requests, idle int) {
	files, known := process.FileLimit()
	quarter := mostInFlight
	if known && files/4 < mostInFlight {
		quarter = max(leastInFlight, int(files/4))
	}
	if inFlight <= 0 {
		inFlight = quarter
	}
	return inFlight, max(1, min(inFlight, quarter/2))
}
