// Package payload renders an event for subscribers: the body, its media type,
// and the headers that go with it.
//
// It promises that a live event, a retry, a test, a replay, a redrive and a replay to a URL send
// the same bytes for the same event, and that a shown request is the one that is sent. Rendering
// does not fail: malformed events have been set aside before.
package payload

import (
	"net/http"

	"posthorn/services/internal/eventlog"
)

const (
	contentType = "application/json"
	headerID    = "Webhook-Id"
	traceParent = "traceparent"
	traceState  = "tracestate"
	maxTrace    = 512 // bytes of a header that W3C Trace Context requires to be propagated
)

// Payload is the rendered form of an event.
type Payload struct {
	ID          string
	ContentType string
	Body        []byte
	Trace       Trace
}

// Trace is the trace context of an event's producer. An invalid one is left out: a producer may
// write anything into the metadata, and that must stop neither a message nor a request.
type Trace struct{ Parent, State string }

// Render makes the payload of an event.
func Render(r *eventlog.Record) Payload {
	return Payload{
		ID: r.ID, ContentType: contentType, Body: r.AppendBody(make([]byte, 0, len(r.Data)+256)), Trace: TraceOf(r.Metadata),
	}
}

// TraceOf reads a trace context from an event's metadata.
func TraceOf(metadata map[string]string) (t Trace) {
	if parent := metadata[traceParent]; visible(parent) {
		t.Parent = parent
		if state := metadata[traceState]; visible(state) {
			t.State = state
		}
	}
	return t
}

func visible(s string) bool {
	if len(s) > maxTrace {
		return false
	}
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return s != ""
}

// Headers returns the trace headers of a request; nil if there are none.
func (t Trace) Headers() http.Header {
	if t.Parent == "" {
		return nil
	}
	h := http.Header{"Traceparent": {t.Parent}}
	if t.State != "" {
		h["Tracestate"] = []string{t.State}
	}
	return h
}

// Shown returns the headers of a request that has not been made yet, for display.
func (p Payload) Shown() map[string]string {
	shown := map[string]string{"Content-Type": p.ContentType, headerID: p.ID}
	for name, values := range p.Trace.Headers() {
		shown[name] = values[0]
	}
	return shown
}
