package api

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"posthorn/events"
	"posthorn/events/strictjson"
)

// Media types of events.
const (
	mediaJSON             = "application/json"
	mediaCloudEvent       = "application/cloudevents+json"
	mediaCloudEventsBatch = "application/cloudevents-batch+json"
)

// decodeEvents reads the events of a request. many reports whether they came as
// a batch, whose response is a batch too.
func decodeEvents(r *http.Request, body []byte) (batch []events.Event, many bool, p *Problem) {
	media, p := mediaType(r, mediaJSON, mediaCloudEvent, mediaCloudEventsBatch)
	binary := r.Header.Get("Ce-Specversion") != ""
	switch {
	case binary && (p != nil || (media != mediaCloudEvent && media != mediaCloudEventsBatch)):
		e, p := decodeBinary(r, body)
		return []events.Event{e}, false, p
	case p != nil:
		return nil, false, p
	}
	decode := decodeEvent
	switch media {
	case mediaJSON:
		many = firstByte(body) == '['
	case mediaCloudEvent:
		decode = decodeCloudEvent
	case mediaCloudEventsBatch:
		decode, many = decodeCloudEvent, true
	default:
		return nil, false, unsupported(media, mediaJSON, mediaCloudEvent, mediaCloudEventsBatch)
	}
	if len(body) == 0 {
		return nil, false, malformed(&strictjson.Error{Message: "is empty"})
	}
	if !many {
		e, p := decode(body, "")
		return []events.Event{e}, false, p
	}
	elements, err := strictjson.Array(body, maxBatch)
	if err != nil {
		return nil, true, malformed(err)
	}
	if len(elements) == 0 {
		return nil, true, invalid(inBody("", "holds no event"))
	}
	batch = make([]events.Event, len(elements))
	var issues []FieldIssue
	for i, element := range elements {
		prefix := "[" + strconv.Itoa(i) + "]."
		e, p := decode(element, prefix)
		if p != nil {
			if p.Status != http.StatusUnprocessableEntity || len(issues) > 20 {
				return nil, true, p
			}
			issues = append(issues, p.Errors...)
		}
		batch[i] = e
	}
	if issues != nil {
		return nil, true, invalid(issues...)
	}
	return batch, true, nil
}

func firstByte(body []byte) byte {
	if trimmed := bytes.TrimLeft(body, " \t\r\n"); len(trimmed) > 0 {
		return trimmed[0]
	}
	return 0
}

// fields collects the invalid fields of one event.
type fields struct {
	// location is "header" for fields that are headers; empty means "body".
	location string
	// prefix precedes the names: "ce-" or the place in a batch.
	prefix string
	issues []FieldIssue
}

func (f *fields) add(name, message string) {
	issue := FieldIssue{Location: f.location, Field: strings.TrimSuffix(f.prefix+name, "."), Message: message}
	if issue.Location == "" {
		issue.Location = "body"
	}
	f.issues = append(f.issues, issue)
}

func (f *fields) text(m strictjson.Member) string {
	if m.Raw[0] != '"' {
		f.add(m.Name, "must be a string")
		return ""
	}
	return strictjson.Text(m.Raw)
}

func (f *fields) time(name, text string) time.Time {
	at, err := events.ParseTime(text)
	if err == nil {
		// Postgres keeps microseconds.
		at = at.Truncate(time.Microsecond)
	}
	switch {
	case err != nil:
		f.add(name, err.Error())
		return time.Time{}
	case at.IsZero():
		f.add(name, "must lie in the years 1 to 9999")
	}
	return at
}

// check returns the event if it is valid.
func (f *fields) check(e events.Event) (events.Event, *Problem) {
	if len(f.issues) == 0 {
		// Parsed data is valid JSON already, so it is left out here; the outbox
		// checks it again.
		check := e
		check.Data = nil
		if err := check.Validate(); err != nil {
			issue := eventIssue(err)
			f.add(issue.Field, issue.Message)
		}
	}
	if len(f.issues) > 0 {
		return events.Event{}, invalid(f.issues...)
	}
	return e, nil
}

// decodeEvent reads an event in our own form:
// {"id","type","subject","data","occurredAt"}. timestamp, the name in the body
// that subscribers get, is an alias of occurredAt.
func decodeEvent(raw []byte, prefix string) (events.Event, *Problem) {
	members, err := strictjson.Object(raw)
	if err != nil {
		return events.Event{}, malformed(err.Under(strings.TrimSuffix(prefix, ".")))
	}
	f := fields{prefix: prefix}
	var e events.Event
	typed := false
	for _, m := range members {
		switch m.Name {
		case "id":
			if e.ID = f.text(m); e.ID == "" && len(f.issues) == 0 {
				f.add("id", "is empty; leave it out to get one")
			}
		case "type":
			e.Type, typed = f.text(m), true
		case "subject":
			e.Subject = f.text(m)
		case "data":
			e.Data = m.Raw
		case "occurredAt", "timestamp":
			if !e.OccurredAt.IsZero() {
				f.add(m.Name, "occurredAt and timestamp are aliases; give one")
				continue
			}
			if text := f.text(m); m.Raw[0] == '"' {
				e.OccurredAt = f.time(m.Name, text)
			}
		default:
			f.add(m.Name, "is not a known field")
		}
	}
	if !typed {
		f.add("type", "is required")
	}
	return f.check(e)
}

// decodeBinary reads a CloudEvent whose attributes are headers and whose body
// is its data.
func decodeBinary(r *http.Request, body []byte) (events.Event, *Problem) {
	c := cloudEvent{fields: fields{location: "header", prefix: "ce-"}}
	for name, values := range r.Header {
		attribute, ok := cutPrefixFold(name, "Ce-")
		if !ok {
			continue
		}
		if len(values) != 1 {
			c.add(attribute, "is given more than once")
			continue
		}
		value, err := unescapeHeader(values[0])
		if err != nil {
			c.add(attribute, err.Error())
			continue
		}
		c.attribute(attribute, value)
	}
	if contentType := r.Header.Get("Content-Type"); contentType != "" {
		c.event.ContentType = contentType
		if err := (events.Event{Type: "any", ContentType: contentType}).Validate(); err != nil {
			return events.Event{}, unsupported(contentType)
		}
	}
	if len(body) > 0 {
		if c.event.JSON() {
			if err := strictjson.Check(body, 1); err != nil {
				return events.Event{}, malformed(err)
			}
		}
		c.event.Data = body
	}
	return c.finish()
}

func cutPrefixFold(s, prefix string) (string, bool) {
	if len(s) <= len(prefix) || !bytes.EqualFold([]byte(s[:len(prefix)]), []byte(prefix)) {
		return "", false
	}
	return string(bytes.ToLower([]byte(s[len(prefix):]))), true
}

// unescapeHeader undoes the quoting and the percent-encoding of the CloudEvents
// HTTP binding, section 3.1.3.2.
func unescapeHeader(value string) (string, error) {
	if len(value) > 1 && value[0] == '"' {
		if value[len(value)-1] != '"' {
			return "", errors.New("begins with a quote and does not end with one")
		}
		inner, plain := value[1:len(value)-1], make([]byte, 0, len(value))
		for i := 0; i < len(inner); i++ {
			if inner[i] == '\\' && i+1 < len(inner) {
				i++
			}
			plain = append(plain, inner[i])
		}
		value = string(plain)
	}
	out := make([]byte, 0, len(value))
	for i := 0; i < len(value); i++ {
		if value[i] != '%' {
			out = append(out, value[i])
			continue
		}
		if i+2 >= len(value) {
			return "", errors.New("ends within a percent-encoding")
		}
		b, err := strconv.ParseUint(value[i+1:i+3], 16, 8)
		if err != nil {
			return "", fmt.Errorf("has a malformed percent-encoding at byte %d", i)
		}
		out = append(out, byte(b))
		i += 2
	}
	if !utf8.Valid(out) {
		return "", errors.New("is not UTF-8")
	}
	return string(out), nil
}
