package sender

import (
	"context"
	"net/http"
	"net/http/httptrace"
	"sync/atomic"
)

// flight follows one request: which connection it got, and whether a byte of a
// response came back on it.
type flight struct {
	trace httptrace.ClientTrace
	// reused and answered are set by the transport's goroutines, which may
	// still run when it has returned an error.
	reused, answered atomic.Bool
}

func newFlight() *flight {
	f := &flight{}
	f.trace.GotConn = func(info httptrace.GotConnInfo) { f.reused.Store(info.Reused) }
	f.trace.GotFirstResponseByte = func() { f.answered.Store(true) }
	return f
}

// roundTrip makes the request, and makes it again on a connection of its own
// where one that was kept open ended before a byte of a response: servers close
// idle connections, and the request may have crossed the close. A new
// connection that ends like this is the server's answer.
//
// net/http repeats a request only where nothing of it was written, or where it
// is marked as idempotent, and then as often as it finds kept connections.
func (s *Sender) roundTrip(ctx context.Context, request func(context.Context) *http.Request) (response *http.Response, again bool, err error) {
	f := newFlight()
	response, err = s.transport.RoundTrip(request(httptrace.WithClientTrace(ctx, &f.trace)))
	if err == nil || !f.reused.Load() || f.answered.Load() || ctx.Err() != nil {
		return response, false, err
	}
	response, err = s.fresh.RoundTrip(request(ctx))
	return response, true, err
}
