package sender

import (
	"context"
	"net/http"
	"net/http/httptrace"
	"sync/atomic"
)

// flight tracks one request: its connection, and whether a byte of a response
// came back on it.
type flight struct {
	trace httptrace.ClientTrace
	// The transport's goroutines set reused and answered, and may still run
	// after it has returned an error.
	reused, answered atomic.Bool
}

func newFlight() *flight {
	f := &flight{}
	f.trace.GotConn = func(info httptrace.GotConnInfo) { f.reused.Store(info.Reused) }
	f.trace.GotFirstResponseByte = func() { f.answered.Store(true) }
	return f
}

// roundTrip makes the request, and repeats it on a new connection if a
// kept-open one ended before a byte of a response: servers close idle
// connections, and the request may have crossed the close. If a new connection
// ends like this, that is the result.
//
// net/http repeats a request only if nothing of it was written, or if it is
// marked as idempotent, and then as often as it finds kept connections.
func (s *Sender) roundTrip(ctx context.Context, request func(context.Context) *http.Request) (response *http.Response, again bool, err error) {
	f := newFlight()
	response, err = s.transport.RoundTrip(request(httptrace.WithClientTrace(ctx, &f.trace)))
	if err == nil || !f.reused.Load() || f.answered.Load() || ctx.Err() != nil {
		return response, false, err
	}
	response, err = s.fresh.RoundTrip(request(ctx))
	return response, true, err
}
