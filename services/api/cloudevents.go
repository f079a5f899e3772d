package api

import (
	"encoding/base64"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"unicode/utf8"

	"posthorn/events"
)

// cloudEvent is a CloudEvent (1.0.2) on its way to an event: id, type,
// subject, time and data are the event's; source, dataschema and extensions
// go into its metadata, with "ce_" before their names.
//
// The codec is our own: the SDK's lets names be given twice, takes data that
// is not JSON apart, and keeps neither the bytes of data nor which field was
// wrong.
type cloudEvent struct {
	fields
	event       events.Event
	seen        uint8
	contentType string
	extensions  map[string]string
	extraBytes  int
}

// maxExtensionBytes limits names and values of all extensions together.
const maxExtensionBytes = 8 << 10

const (
	seenID = 1 << iota
	seenSource
	seenType
	seenVersion
)

// attribute takes a context attribute whose value is text.
func (c *cloudEvent) attribute(name, value string) {
	switch name {
	case "specversion":
		c.seen |= seenVersion
		if value != "1.0" {
			c.add(name, "must be 1.0")
		}
	case "id":
		c.seen |= seenID
		c.event.ID = value
		if value == "" {
			c.add(name, "is empty")
		}
	case "source":
		c.seen |= seenSource
		if _, err := url.Parse(value); err != nil || value == "" {
			c.add(name, "must be a URI reference")
		}
		c.extra(name, value)
	case "type":
		c.seen |= seenType
		c.event.Type = value
	case "subject":
		if value == "" {
			c.add(name, "is empty; leave it out where there is none")
		}
		c.event.Subject = value
	case "time":
		c.event.OccurredAt = c.time(name, value)
	case "dataschema":
		if u, err := url.Parse(value); err != nil || !u.IsAbs() {
			c.add(name, "must be an absolute URI")
		}
		c.extra(name, value)
	case "datacontenttype":
		c.contentType = value
	default:
		c.extra(name, value)
	}
}

func (c *cloudEvent) extra(name, value string) {
	for i := range len(name) {
		if b := name[i]; (b < 'a' || b > 'z') && (b < '0' || b > '9') {
			c.add(name, "is not an attribute name: only lower-case letters and digits may be in one")
			return
		}
	}
	if strings.ContainsRune(value, 0) || !utf8.ValidString(value) {
		c.add(name, "is not text")
		return
	}
	if c.extraBytes += len(name) + len(value); c.extraBytes > maxExtensionBytes {
		c.add(name, "is too much: all extensions together may have 8192 bytes")
		return
	}
	c.extensions["ce_"+name] = value
}

// finish checks what has come together.
func (c *cloudEvent) finish() (events.Event, *Problem) {
	if c.contentType != "" && !jsonMedia(c.contentType) {
		return events.Event{}, problem(http.StatusUnsupportedMediaType,
			"The event's datacontenttype must be JSON, such as application/json: other data is not taken in.",
			inBody("datacontenttype", "must be JSON"))
	}
	for i, name := range []string{"id", "source", "type", "specversion"} {
		if c.seen&(1<<i) == 0 {
			c.add(name, "is required")
		}
	}
	c.event.Metadata = c.extensions
	return c.check(c.event)
}

// jsonMedia reports whether a media type means JSON: application/json,
// text/json or anything that ends in +json.
func jsonMedia(contentType string) bool {
	media, params, err := mime.ParseMediaType(contentType)
	if err != nil {
		return false
	}
	if charset := params["charset"]; charset != "" && !strings.EqualFold(charset, "utf-8") {
		return false
	}
	return media == mediaJSON || media == "text/json" || strings.HasSuffix(media, "+json")
}

// decodeCloudEvent reads a CloudEvent in its JSON form.
func decodeCloudEvent(raw []byte, prefix string) (events.Event, *Problem) {
	members, err := parseObject(raw)
	if err != nil {
		return events.Event{}, malformed(err.under(strings.TrimSuffix(prefix, ".")))
	}
	c := cloudEvent{fields: fields{prefix: prefix}, extensions: map[string]string{}}
	for _, m := range members {
		switch {
		case m.name == "data":
			if c.event.Data != nil {
				c.add("data", "data and data_base64 exclude each other")
			}
			c.event.Data = m.raw
		case m.name == "data_base64":
			if c.event.Data != nil {
				c.add("data_base64", "data and data_base64 exclude each other")
			}
			data, err := base64.StdEncoding.DecodeString(c.text(m))
			if err != nil {
				c.add("data_base64", "is not base64")
			} else if bad := checkJSON(data); bad != nil {
				c.add("data_base64", bad.Error())
			}
			c.event.Data = data
		case m.raw[0] == '"':
			c.attribute(m.name, unquote(m.raw))
		case string(m.raw) == "null":
			// An attribute that is null is an attribute that is not there.
		case m.raw[0] == '{' || m.raw[0] == '[':
			c.add(m.name, "must not be an object or array")
		case wellKnown(m.name):
			c.add(m.name, "must be a string")
		default: // a number or boolean
			c.extra(m.name, string(m.raw))
		}
	}
	return c.finish()
}

func wellKnown(name string) bool {
	switch name {
	case "specversion", "id", "source", "type", "subject", "time", "dataschema", "datacontenttype":
		return true
	}
	return false
}
