package api

import (
	"bytes"
	"context"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sync/semaphore"

	"posthorn/services/internal/postgres"
)

// Large responses have three bounds: a page ends by its bytes
// (postgres.PageBytes), all responses that are being built or written share
// responseRoom, and a client that does not read is disconnected. So clients
// that never read cost a fixed amount of memory, for a limited time.
const (
	responseRoom = 64 << 20
	// makingRoom is the memory of a page while it is built: as rows, as values
	// and as JSON. Once built, it takes its length.
	makingRoom = 8 * postgres.PageBytes
	// roomPatience is how long a request waits for memory.
	roomPatience = 2 * time.Second
	// A client must read this many bytes of a response in each WriteTimeout,
	// and all of it in maxWriteTimeouts of them.
	writeChunk       = 64 << 10
	maxWriteTimeouts = 6
)

// spool holds a response until it is complete, so that it can be written
// without holding a database connection and can be stored (see idempotent).
type spool struct {
	w      http.ResponseWriter
	header http.Header
	status int
	body   bytes.Buffer
	room   *semaphore.Weighted
	held   int64
}

type spoolKey struct{}

func (s *spool) Header() http.Header { return s.header }

func (s *spool) WriteHeader(status int) {
	if s.status == 0 {
		s.status = status
	}
}

func (s *spool) Write(b []byte) (int, error) {
	s.WriteHeader(http.StatusOK)
	return s.body.Write(b)
}

// reset discards the response.
func (s *spool) reset() {
	s.status, s.header = 0, http.Header{}
	s.body.Reset()
}

// spooled sends the response of next once next has returned.
func (a *API) spooled(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s := &spool{w: w, header: http.Header{}, room: a.room}
		defer func() { s.hold(0) }()
		next.ServeHTTP(s, r.WithContext(context.WithValue(r.Context(), spoolKey{}, s)))
		s.hold(int64(s.body.Cap()))
		s.send(a.cfg.WriteTimeout)
	})
}

// reserve waits for the memory that it takes to build a page. The response
// releases it.
func (a *API) reserve(ctx context.Context) error {
	s, ok := ctx.Value(spoolKey{}).(*spool)
	if !ok || s.held > 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, roomPatience)
	defer cancel()
	if err := s.room.Acquire(ctx, makingRoom); err != nil {
		return problem(http.StatusServiceUnavailable, "Too many large responses are in progress. Try again.").
			with("Retry-After", retryAfter)
	}
	s.held = makingRoom
	return nil
}

// hold releases the memory held beyond n.
func (s *spool) hold(n int64) {
	if s.held > n {
		s.room.Release(s.held - n)
		s.held = n
	}
}

// send writes the response. The client must read every part in time; afterwards
// the server's own deadline applies again.
func (s *spool) send(timeout time.Duration) {
	control := http.NewResponseController(s.w)
	last := time.Now().Add(maxWriteTimeouts * timeout)
	extend := func() {
		at := time.Now().Add(timeout)
		if at.After(last) {
			at = last
		}
		_ = control.SetWriteDeadline(at) // not in a test without a connection
	}
	if s.status == 0 {
		s.status = http.StatusOK
	}
	maps.Copy(s.w.Header(), s.header)
	if s.status != http.StatusNoContent {
		s.w.Header().Set("Content-Length", strconv.Itoa(s.body.Len()))
	}
	extend()
	s.w.WriteHeader(s.status)
	for part := range slices.Chunk(s.body.Bytes(), writeChunk) {
		extend()
		if _, err := s.w.Write(part); err != nil {
			return // an error means that the client is gone
		}
	}
	if control.Flush() == nil {
		_ = control.SetWriteDeadline(time.Time{})
	}
}
