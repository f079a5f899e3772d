package inbox

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"posthorn/events/webhook"
)

// Recorded is a request as the API shows it.
type Recorded struct {
	Number  int       `json:"number"` // in its bin, from 1
	At      time.Time `json:"at"`
	Method  string    `json:"method"`
	Path    string    `json:"path"`
	Query   string    `json:"query,omitempty"`
	Headers []Header  `json:"headers"`
	// Body is the text, or base64 if BodyEncoding says so. A JSON body is in
	// JSON instead, unless ?raw=1 asks for its exact bytes.
	Body         string          `json:"body,omitempty"`
	BodyEncoding string          `json:"bodyEncoding,omitempty"`
	JSON         json.RawMessage `json:"json,omitempty"`
	Bytes        int             `json:"bytes"`
	Truncated    bool            `json:"truncated,omitempty"`
	Signature    Verdict         `json:"signature"`
	Answer       Answer          `json:"answer"`

	isJSON bool
}

// Header is one of a request's headers.
type Header struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Verdict on a request's signature.
type Verdict struct {
	// State is valid, invalid, unsigned (there is none), or unchecked (the bin
	// has no secret).
	State  string `json:"state"`
	Reason string `json:"reason,omitempty"`
}

// Answer is the response that the request got.
type Answer struct {
	Status int    `json:"status"`
	Delay  string `json:"delay,omitempty"`
	Hang   bool   `json:"hang,omitempty"`
}

const (
	maxHeaders     = 100
	maxHeaderValue = 4 << 10
)

// record keeps the request and then answers it as the bin is configured.
func (i *Inbox) record(w http.ResponseWriter, r *http.Request, name string, query url.Values) {
	override, err := parseQuery(query)
	if err != nil {
		writeProblem(w, http.StatusBadRequest, err.Error())
		return
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, maxRead+1))
	if err != nil {
		writeProblem(w, http.StatusBadRequest, "the body could not be read")
		return
	}
	entry := Recorded{
		At:      i.now().UTC(),
		Method:  clip(r.Method, 32),
		Path:    clip(r.URL.Path, maxHeaderValue),
		Query:   clip(shownQuery(query), maxHeaderValue),
		Headers: keepHeaders(r),
		Bytes:   len(body),
	}
	keepBody(&entry, body)

	// Do not hash a large body under the store's lock.
	entry.Signature = verdict(r.Header, body, i.store.secret(name, override))
	settings := i.store.add(name, &entry, override)
	i.logger.InfoContext(r.Context(), "request recorded",
		"bin", name, "method", entry.Method, "bytes", entry.Bytes, "status", entry.Answer.Status)

	if settings.Delay > 0 && !i.wait(r.Context(), time.Duration(settings.Delay)) {
		return
	}
	if entry.Answer.Hang {
		i.wait(r.Context(), i.maxHang)
		panic(http.ErrAbortHandler) // never respond
	}
	// The server's own deadline counts from before the delay.
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(heartbeat))
	if settings.RetryAfter > 0 && entry.Answer.Status >= 300 {
		w.Header().Set("Retry-After", strconv.Itoa(settings.RetryAfter))
	}
	writeText(w, entry.Answer.Status, "recorded\n")
}

// wait returns true after d, and false if the client disconnects or the inbox closes first.
func (i *Inbox) wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
	case <-i.closing.Done():
	}
	return false
}

func verdict(header http.Header, body []byte, secret webhook.Secret) Verdict {
	switch {
	case header.Get(webhook.HeaderSignature) == "":
		return Verdict{State: "unsigned"}
	case secret.IsZero():
		return Verdict{State: "unchecked", Reason: "the bin has no secret"}
	case len(body) > maxRead:
		return Verdict{State: "unchecked", Reason: "the body is too large"}
	}
	if err := webhook.Verify(header, body, webhook.DefaultTolerance, secret); err != nil {
		return Verdict{State: "invalid", Reason: err.Error()}
	}
	return Verdict{State: "valid"}
}

// keepHeaders lists the headers by name, including Host, which net/http keeps separately.
func keepHeaders(r *http.Request) []Header {
	kept := []Header{{Name: "Host", Value: clip(r.Host, maxHeaderValue)}}
	names := make([]string, 0, len(r.Header))
	for name := range r.Header {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		for _, value := range r.Header[name] {
			if len(kept) == maxHeaders {
				return kept
			}
			kept = append(kept, Header{Name: clip(name, 256), Value: clip(value, maxHeaderValue)})
		}
	}
	return kept
}

func keepBody(entry *Recorded, body []byte) {
	kept := body
	if len(kept) > maxKeptBody {
		kept, entry.Truncated = kept[:maxKeptBody], true
	}
	if !utf8.Valid(kept) {
		entry.Body, entry.BodyEncoding = base64.StdEncoding.EncodeToString(kept), "base64"
		return
	}
	entry.Body = string(kept)
	entry.isJSON = !entry.Truncated && len(kept) > 0 && json.Valid(kept)
}

// shownQuery is the query without the secret.
func shownQuery(query url.Values) string {
	if !query.Has("secret") {
		return query.Encode()
	}
	shown := maps.Clone(query)
	shown.Set("secret", "redacted")
	return shown.Encode()
}

// clip truncates text and makes it UTF-8, so that JSON does not change it.
func clip(text string, limit int) string {
	if len(text) > limit {
		text = text[:limit] + "..."
	}
	return strings.ToValidUTF8(text, "\uFFFD")
}
