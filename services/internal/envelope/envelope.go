// Package envelope defines the headers that travel with an event through the
// broker: they identify the delivery of a message and its progress.
//
// A message is only a token for the next attempt of a delivery; the ledger is
// authoritative. An Authenticator signs messages, and opens signed ones. Messages
// that Posthorn did not write are refused with ErrForeign or ErrUnverified and
// must be parked, not delivered.
package envelope

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"posthorn/services/internal/ledger"
)

// ErrForeign is returned by Parse for headers that Posthorn did not write.
var ErrForeign = errors.New("not a Posthorn message")

// Names of the headers. Their values are text, as in all our headers, so that
// any consumer can read them.
const (
	headerPosition    = "posthorn-position"
	headerRun         = "posthorn-run"
	headerAttempts    = "posthorn-attempts"
	headerCause       = "posthorn-cause"
	headerWait        = "posthorn-wait-ms"
	headerPublishedAt = "posthorn-published-at"
	headerSuspect     = "posthorn-suspect"
	headerType        = "posthorn-type"
	headerAccount     = "posthorn-account"

	headerTraceParent = "traceparent"
	headerTraceState  = "tracestate"
)

// Envelope of a message.
type Envelope struct {
	// Position of the event in the outbox.
	Position int64
	// Run of the delivery: 0, plus one for each replay or redrive.
	Run int
	// Attempts made in the run before this message was sent.
	Attempts int
	// Cause of the delivery.
	Cause ledger.Cause
	// Wait is how long the delivery must still wait when the message arrives:
	// the rest of a delay that is too long for a single retry queue.
	Wait time.Duration
	// PublishedAt is when the message was handed to the broker, to the
	// millisecond.
	PublishedAt time.Time
	// Type of the event, and its Account (empty for the default one), if the
	// message is for all matching subscriptions; without a Type it is for one.
	Type, Account string
	// Suspect: the same message may have been sent before.
	Suspect bool
	// Trace context (W3C) of the event; may be empty.
	TraceParent, TraceState string
}

// Headers returns the headers of a message with this envelope.
func (e Envelope) Headers() map[string]string {
	h := make(map[string]string, 7)
	h[headerPosition] = strconv.FormatInt(e.Position, 10)
	h[headerCause] = string(e.Cause)
	h[headerPublishedAt] = strconv.FormatInt(e.PublishedAt.UnixMilli(), 10)
	if e.Run > 0 {
		h[headerRun] = strconv.Itoa(e.Run)
	}
	if e.Attempts > 0 {
		h[headerAttempts] = strconv.Itoa(e.Attempts)
	}
	if e.Wait > 0 {
		h[headerWait] = strconv.FormatInt(e.Wait.Milliseconds(), 10)
	}
	if e.Suspect {
		h[headerSuspect] = "true"
	}
	if e.Type != "" {
		h[headerType] = e.Type
		if e.Account != "" {
			h[headerAccount] = e.Account
		}
	}
	if e.TraceParent != "" {
		h[headerTraceParent] = e.TraceParent
	}
	if e.TraceState != "" {
		h[headerTraceState] = e.TraceState
	}
	return h
}

// Parse parses the result of Headers.
func Parse(headers map[string]string) (Envelope, error) {
	position, err := strconv.ParseInt(headers[headerPosition], 10, 64)
	if err != nil || position < 1 {
		return Envelope{}, fmt.Errorf("%w: header %s is %q", ErrForeign, headerPosition, headers[headerPosition])
	}
	e := Envelope{
		Position: position, Cause: ledger.Cause(headers[headerCause]), Suspect: headers[headerSuspect] == "true",
		Type: headers[headerType], Account: headers[headerAccount],
		TraceParent: headers[headerTraceParent], TraceState: headers[headerTraceState],
	}
	switch e.Cause {
	case ledger.CauseLive, ledger.CauseRetry, ledger.CauseReplay, ledger.CauseRedrive, ledger.CauseTest:
	default:
		return Envelope{}, fmt.Errorf("%w: header %s is %q", ErrForeign, headerCause, headers[headerCause])
	}
	for _, field := range []struct {
		name string
		max  int64
		set  func(int64)
	}{
		{headerRun, 1 << 30, func(n int64) { e.Run = int(n) }},
		{headerAttempts, 1 << 30, func(n int64) { e.Attempts = int(n) }},
		{headerWait, int64(30 * 24 * time.Hour / time.Millisecond), func(n int64) { e.Wait = time.Duration(n) * time.Millisecond }},
		{headerPublishedAt, 1 << 50, func(n int64) { e.PublishedAt = time.UnixMilli(n) }},
	} {
		text, ok := headers[field.name]
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil || n < 0 || n > field.max {
			return Envelope{}, fmt.Errorf("%w: header %s is %q", ErrForeign, field.name, text)
		}
		field.set(n)
	}
	return e, nil
}
