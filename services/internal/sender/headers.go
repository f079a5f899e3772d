package sender

import (
	"errors"
	"fmt"
	"net/http"
	"net/textproto"
	"net/url"
	"slices"
	"strings"
)

// ErrInvalidHeader is wrapped by errors of ValidateHeaders. The text after it
// can be shown to the user.
var ErrInvalidHeader = errors.New("invalid header")

const (
	maxCustomHeaders     = 32
	maxCustomHeaderName  = 128
	maxCustomHeaderValue = 2048
)

// ValidateHeaders reports why headers cannot be added to a subscription's
// requests.
func ValidateHeaders(headers http.Header) error {
	if len(headers) > maxCustomHeaders {
		return fmt.Errorf("%w: more than %d", ErrInvalidHeader, maxCustomHeaders)
	}
	for name, values := range headers {
		switch {
		case !isToken(name):
			return fmt.Errorf("%w: a name must be letters, digits and !#$%%&'*+-.^_`|~ only", ErrInvalidHeader)
		case len(name) > maxCustomHeaderName:
			return fmt.Errorf("%w: a name is longer than %d bytes", ErrInvalidHeader, maxCustomHeaderName)
		case reserved(textproto.CanonicalMIMEHeaderKey(name)):
			return fmt.Errorf("%w: %s is set by Posthorn", ErrInvalidHeader, name)
		case len(values) != 1:
			return fmt.Errorf("%w: %s must have one value", ErrInvalidHeader, name)
		case len(values[0]) > maxCustomHeaderValue:
			return fmt.Errorf("%w: the value of %s is longer than %d bytes", ErrInvalidHeader, name, maxCustomHeaderValue)
		case strings.ContainsFunc(values[0], forbiddenInValue):
			return fmt.Errorf("%w: the value of %s must be visible ASCII", ErrInvalidHeader, name)
		case strings.TrimSpace(values[0]) != values[0]:
			return fmt.Errorf("%w: the value of %s begins or ends with a space", ErrInvalidHeader, name)
		}
	}
	return nil
}

// isToken is RFC 9110's grammar of a header's name.
func isToken(name string) bool {
	for i := range len(name) {
		c := name[i]
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		case strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0:
		default:
			return false
		}
	}
	return name != ""
}

func forbiddenInValue(r rune) bool { return r < ' ' || r > '~' }

// reserved reports whether a subscriber must not set the header, given its
// canonical name: it frames the message, belongs to one connection, describes
// the body, or is ours.
func reserved(name string) bool {
	switch name {
	case "Host", "Content-Length", "Content-Type", "Content-Encoding",
		"Transfer-Encoding", "Te", "Trailer", "Connection", "Keep-Alive",
		"Upgrade", "Expect", "Accept-Encoding", "User-Agent",
		// With either, net/http may send the request a second time.
		"Idempotency-Key", "X-Idempotency-Key":
		return true
	}
	return strings.HasPrefix(name, "Webhook-") || strings.HasPrefix(name, "Proxy-") ||
		strings.HasPrefix(name, "Ce-") // CloudEvents
}

// dropped is the part of reserved that Send enforces: Headers also has headers
// of Posthorn itself, such as Content-Type or Ce-Id.
func dropped(name string) bool {
	switch name {
	case "Content-Type", "Content-Encoding", "User-Agent":
		return false
	}
	return reserved(name) && !strings.HasPrefix(name, "Ce-")
}

// Limits of the recorded headers of an attempt.
const (
	maxKeptHeaders = 64
	maxKeptValue   = 1024
	maxKeptTotal   = 8 << 10
)

// keep returns a request's headers for the record: joined, capped, and without
// credentials.
func keep(headers http.Header) map[string]string {
	return keepUnless(headers, func(name, value string) string {
		if sensitive(name) {
			return redacted
		}
		return value
	})
}

// keepResponse returns a response's headers for the record. A header of any
// name can contain a credential, so it keeps the values of headers that are
// known to contain none, and only the names of others.
func keepResponse(headers http.Header) map[string]string {
	return keepUnless(headers, func(name, value string) string {
		switch {
		case name == "Location":
			return withoutQuery(value)
		case harmless(name):
			return value
		}
		return redacted
	})
}

const redacted = "[redacted]"

// harmless reports whether a response's header describes the response, says
// when to retry, or identifies the request for the server's operator.
func harmless(name string) bool {
	switch name {
	case "Accept", "Age", "Allow", "Alt-Svc", "Cache-Control", "Connection", "Content-Encoding", "Content-Language", "Content-Length",
		"Content-Type", "Date", "Expires", "Keep-Alive", "Last-Modified", "Retry-After", "Server", "Strict-Transport-Security",
		"Transfer-Encoding", "Upgrade", "Vary", "Via", "X-Content-Type-Options", "X-Powered-By",
		// Request ids, for a subscriber's support.
		"Cf-Ray", "Fly-Request-Id", "Request-Id", "Traceparent", "X-Amz-Cf-Id", "X-Amz-Request-Id", "X-Amzn-Requestid", "X-Amzn-Trace-Id",
		"X-Azure-Ref", "X-Cache", "X-Cloud-Trace-Context", "X-Correlation-Id", "X-Ms-Request-Id", "X-Request-Id", "X-Runtime", "X-Trace-Id", "X-Vercel-Id":
		return true
	}
	return strings.HasPrefix(name, "Ratelimit") || strings.HasPrefix(name, "X-Ratelimit-") || strings.HasPrefix(name, "X-Rate-Limit-")
}

// withoutQuery returns a redirect's target without its query, fragment, user
// and password, which often contain credentials.
func withoutQuery(location string) string {
	u, err := url.Parse(location)
	if err != nil || u.Opaque != "" {
		return redacted
	}
	place, _, _ := strings.Cut(location, "#")
	place, _, query := strings.Cut(place, "?")
	if strings.Count(place, "//") > 1 {
		return redacted // perhaps several, joined
	}
	if u.User != nil {
		scheme, rest, _ := strings.Cut(place, "//")
		_, rest, _ = strings.Cut(rest, "@")
		place = scheme + "//" + redacted + "@" + rest
	}
	if query {
		place += "?" + redacted
	}
	return place
}

// keepUnless keeps headers by canonical name, with each value passed through show.
func keepUnless(headers http.Header, show func(name, value string) string) map[string]string {
	if len(headers) == 0 {
		return nil
	}
	kept := make(map[string]string, min(len(headers), maxKeptHeaders))
	total := 0
	add := func(name string, values []string) bool {
		value := values[0]
		if len(values) > 1 {
			value = strings.Join(values, ", ")
		}
		value = show(name, value)
		if len(value) > maxKeptValue {
			value = strings.ToValidUTF8(value[:maxKeptValue], "") + "..."
		}
		value = printable(value)
		total += len(name) + len(value)
		if len(kept) == maxKeptHeaders || total > maxKeptTotal {
			return false
		}
		kept[name] = value
		return true
	}
	if !overCap(headers) {
		for name, values := range headers {
			if len(values) > 0 {
				add(name, values)
			}
		}
		return kept
	}
	// Which headers are dropped must not depend on a map's order.
	names := make([]string, 0, len(headers))
	for name := range headers {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		if values := headers[name]; len(values) > 0 && !add(name, values) {
			break
		}
	}
	return kept
}

func overCap(headers http.Header) bool {
	if len(headers) > maxKeptHeaders {
		return true
	}
	total := 0
	for name, values := range headers {
		total += len(name)
		for _, value := range values {
			total += len(value) + len(", ")
		}
	}
	return total > maxKeptTotal
}

// sensitive decides by the name: a signature proves one request and is kept; a
// credential would give readers of the ledger access to the subscriber's
// server.
func sensitive(name string) bool {
	switch name {
	case "Webhook-Signature":
		return false
	case "Authorization", "Cookie", "Set-Cookie":
		return true
	}
	for _, word := range [...]string{"auth", "token", "secret", "password", "api-key", "apikey", "credential"} {
		if containsFold(name, word) {
			return true
		}
	}
	return false
}

// containsFold avoids a lower-case copy, of which an attempt would make a dozen.
func containsFold(name, word string) bool {
	for i := 0; i+len(word) <= len(name); i++ {
		if strings.EqualFold(name[i:i+len(word)], word) {
			return true
		}
	}
	return false
}

// printable returns text that can be stored and shown anywhere: a header's
// value may have bytes that are not UTF-8, which a text column refuses.
func printable(text string) string {
	if !strings.ContainsFunc(text, unprintable) {
		return text
	}
	return strings.Map(func(r rune) rune {
		if unprintable(r) {
			return '?'
		}
		return r
	}, text)
}

func unprintable(r rune) bool {
	return r < ' ' || r == 0x7f || r == '\uFFFD' || r >= 0x80 && r < 0xa0
}
