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

// Answers that can be large are bounded three times: a page ends by its bytes
// (postgres.PageBytes), all that are being made or written at a time share
// responseRoom, and a client that does not read is cut off. So clients that
// ask and never read cost a fixed amount of memory, and only for a while.
const (
	responseRoom = 64 << 20
	// makingRoom is what a page takes while it is made: as rows, as values and
	// as JSON. Once it is made, it takes its length.
	makingRoom = 8 * postgres.PageBytes
	// roomPatience is how long a request waits for room.
	roomPatience = 2 * time.Second
	// Of an answer, so many bytes have to be read in each WriteTimeout, and
	// all of it in maxWriteTimeouts of them.
	writeChunk       = 64 << 10
	maxWriteTimeouts = 6
)

// spool holds an answer until it is complete, so that it is written with no
// connection to the database taken and can be kept (see idempotent).
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

// reset forgets what was answered.
func (s *spool) reset() {
	s.status, s.header = 0, http.Header{}
	s.body.Reset()
}

// spooled answers with what next has written once next has returned.
func (a *API) spooled(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s := &spool{w: w, header: http.Header{}, room: a.room}
		defer func() { s.hold(0) }()
		next.ServeHTTP(s, r.WithContext(context.WithValue(r.Context(), spoolKey{}, s)))
		s.hold(int64(s.body.Cap()))
		s.send(a.cfg.WriteTimeout)
	})
}

// reserve waits for the room that it takes to make a page. The answer gives it
// back.
func (a *API) reserve(ctx context.Context) error {
	s, ok := ctx.Value(spoolKey{}).(*spool)
	if !ok || s.held > 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, roomPatience)
	defer cancel()
	if err := s.room.Acquire(ctx, makingRoom); err != nil {
		return problem(http.StatusServiceUnavailable, "Too many large answers are being read slowly at the moment. Try again.").
			with("Retry-After", retryAfter)
	}
	s.held = makingRoom
	return nil
}

// hold gives back the room that is held beyond n.
func (s *spool) hold(n int64) {
	if s.held > n {
		s.room.Release(s.held - n)
		s.held = n
	}
}

// send writes the answer. Every part of it has to be taken in time; after that
// the deadline is the server's own again.
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
			return // nobody is left to tell
		}
	}
	if control.Flush() == nil {
		_ = control.SetWriteDeadline(time.Time{})
	}
}
