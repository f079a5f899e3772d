package api

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/go-chi/chi/v5"

	"posthorn/events"
	"posthorn/outbox"
	"posthorn/services/internal/eventlog"
)

// maxBatch limits the events of one request.
const maxBatch = 1000

// routeHot adds the route that only appends. It is a plain handler: declared
// through huma, the API's own part took a fifth longer (see BenchmarkHandler).
func (a *API) routeHot(r chi.Router) { r.Post("/events", a.postEvents) }

// appendAccepted appends the JSON of an accepted event.
func appendAccepted(dst []byte, r outbox.Result) []byte {
	dst = append(dst, `{"id":`...)
	dst = appendJSONString(dst, r.ID)
	dst = append(dst, `,"type":`...)
	dst = appendJSONString(dst, r.Type)
	if r.Subject != "" {
		dst = append(dst, `,"subject":`...)
		dst = appendJSONString(dst, r.Subject)
	}
	dst = append(dst, `,"position":`...)
	dst = strconv.AppendInt(dst, r.Position, 10)
	dst = append(dst, `,"occurredAt":"`...)
	dst = r.OccurredAt.UTC().AppendFormat(dst, time.RFC3339Nano)
	dst = append(dst, `","recordedAt":"`...)
	dst = r.RecordedAt.UTC().AppendFormat(dst, time.RFC3339Nano)
	dst = append(dst, `","duplicate":`...)
	dst = strconv.AppendBool(dst, r.Outcome == outbox.Existing)
	return append(dst, '}')
}

func appendJSONString(dst []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			quoted, err := json.Marshal(s)
			if err != nil {
				return append(dst, `""`...) // a string always encodes
			}
			return append(dst, quoted...)
		}
	}
	dst = append(dst, '"')
	dst = append(dst, s...)
	return append(dst, '"')
}

func (a *API) writeAccepted(w http.ResponseWriter, results ...outbox.Result) {
	for _, r := range results {
		if r.Outcome == outbox.Existing {
			a.metrics.accepted.WithLabelValues("existing").Inc()
		} else {
			a.metrics.accepted.WithLabelValues("appended").Inc()
		}
	}
	h := w.Header()
	h["Content-Type"] = []string{"application/json"}
	h["Location"] = []string{"/events/" + url.PathEscape(results[0].ID)}
	w.WriteHeader(http.StatusAccepted)
	_, _ = w.Write(append(appendAccepted(make([]byte, 0, 320), results[0]), '\n')) //nolint:gosec // JSON, declared as JSON, with nosniff; an error means that the client is gone
}

// fail responds with the problem for an error, and logs errors that are not the
// client's fault.
func (a *API) fail(w http.ResponseWriter, r *http.Request, err error) {
	p := translate(err)
	a.logFailure(r.Context(), p, err)
	p.write(w)
}

func (a *API) logFailure(ctx context.Context, p *Problem, err error) {
	switch {
	case p.Status == http.StatusInternalServerError:
		a.cfg.Logger.ErrorContext(ctx, "request failed", slog.Any("error", err))
	case p.Status == http.StatusServiceUnavailable && ctx.Err() == nil:
		a.cfg.Logger.WarnContext(ctx, "request refused temporarily", slog.Any("error", err))
	}
}

func (a *API) appendOne(ctx context.Context, e events.Event) (outbox.Result, error) {
	e.Account = actor(ctx).Account
	if e.ID != "" {
		return a.keyed.Commit(ctx, e)
	}
	return a.plain.Commit(ctx, e)
}

// postEvents takes one event or a batch, in our own form or as CloudEvents.
func (a *API) postEvents(w http.ResponseWriter, r *http.Request) {
	body, p := readBody(w, r)
	if p != nil {
		p.write(w)
		return
	}
	batch, many, p := decodeEvents(r, body)
	if p != nil {
		p.write(w)
		return
	}
	addContext(r, batch)
	key, p := idempotencyKey(r)
	if p != nil {
		p.write(w)
		return
	}
	if many {
		a.postBatch(w, r, key, batch)
		return
	}
	e := batch[0]
	switch {
	case key == "":
	case e.ID == "":
		e.ID = key
	case e.ID != key:
		invalid(FieldIssue{Location: "header", Field: "Idempotency-Key", Message: "differs from the field id"}).write(w)
		return
	}
	result, err := a.appendOne(r.Context(), e)
	if err != nil {
		a.fail(w, r, err)
		return
	}
	a.writeAccepted(w, result)
}

func (a *API) postBatch(w http.ResponseWriter, r *http.Request, key string, batch []events.Event) {
	// A batch has its own commit: all of it or nothing.
	ctx, cancel := context.WithTimeout(r.Context(), a.cfg.CommitTimeout)
	defer cancel()
	results, err := a.cfg.Operations.AppendBatch(ctx, actor(ctx), key, batch)
	if err != nil {
		if errors.Is(err, outbox.ErrConflict) && key != "" {
			if _, ok := errors.AsType[*eventlog.ConflictError](err); !ok {
				err = problem(http.StatusConflict, "The Idempotency-Key was used before with another batch.",
					FieldIssue{Location: "header", Field: "Idempotency-Key", Message: "was used with another batch"})
			}
		}
		a.fail(w, r, err)
		return
	}
	out := make([]byte, 0, 256*len(results))
	out = append(out, `{"events":[`...)
	for i, result := range results {
		if i > 0 {
			out = append(out, ',')
		}
		out = appendAccepted(out, result)
		if result.Outcome == outbox.Existing {
			a.metrics.accepted.WithLabelValues("existing").Inc()
		} else {
			a.metrics.accepted.WithLabelValues("appended").Inc()
		}
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusAccepted)
	_, _ = w.Write(append(out, "]}\n"...)) //nolint:gosec // as above
}

// idempotencyKey returns the header's value, with or without the quotes of the
// IETF draft. It becomes an event's id, so it must match that grammar.
func idempotencyKey(r *http.Request) (string, *Problem) {
	values := r.Header.Values("Idempotency-Key")
	if len(values) == 0 {
		return "", nil
	}
	issue := func(message string) *Problem {
		return invalid(FieldIssue{Location: "header", Field: "Idempotency-Key", Message: message})
	}
	if len(values) > 1 {
		return "", issue("is given twice")
	}
	key := values[0]
	if len(key) >= 2 && key[0] == '"' && key[len(key)-1] == '"' {
		key = key[1 : len(key)-1]
	}
	if key == "" {
		return "", issue("is empty")
	}
	// A batch appends a suffix to the key.
	if len(key) > events.MaxIDBytes-8 {
		return "", issue("is longer than " + strconv.Itoa(events.MaxIDBytes-8) + " bytes")
	}
	if err := events.ValidateID(key); err != nil {
		return "", issue(eventIssue(err).Message)
	}
	return key, nil
}

// addContext keeps the trace that the request is part of (W3C Trace Context).
func addContext(r *http.Request, batch []events.Event) {
	parent := TraceParent(r)
	state := r.Header.Get("Tracestate")
	if len(state) > 512 || strings.ContainsFunc(state, func(c rune) bool { return c < ' ' || c > '~' }) {
		state = ""
	}
	if parent == "" {
		return
	}
	for i := range batch {
		if batch[i].Metadata == nil {
			batch[i].Metadata = make(map[string]string, 2)
		}
		batch[i].Metadata["traceparent"] = parent
		if state != "" {
			batch[i].Metadata["tracestate"] = state
		}
	}
}

func validTraceparent(s string) bool {
	if len(s) != 55 || s[2] != '-' || s[35] != '-' || s[52] != '-' || s[:2] == "ff" {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if i != 2 && i != 35 && i != 52 && (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}
