package delivery

import "posthorn/services/internal/process"

const (
	// mostInFlight is the capacity if the file limit does not matter: a request
	// in flight takes some 50 KB of memory.
	mostInFlight  = 4096
	leastInFlight = 4
)

// Capacity returns how many requests a process may have in flight and how many
// idle connections it may keep open. Without a given number they follow from the
// file limit of the process: a quarter of it, since each request may take two
// more files during its host's name lookup, and half of that.
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
