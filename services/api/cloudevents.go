package api

import (
	"encoding/base64"
	"encoding/json"
	"strings"

	"posthorn/events"
	"posthorn/events/strictjson"
)

// cloudEvent builds an event from a CloudEvent (1.0.2).
//
// The codec is our own: the SDK's accepts duplicate names, parses data that is
// not JSON, and keeps neither the bytes of the data nor the name of an invalid
// field.
type cloudEvent struct {
	fields
	event events.Event
	seen  uint8
}

const (
	seenID = 1 << iota
	seenSource
	seenType
	seenVersion
)

// attribute sets a context attribute whose value is text.
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
		c.event.Source = value
		if value == "" {
			c.add(name, "is empty")
		}
		c.try(name, events.Event{Source: value})
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
		c.event.DataSchema = value
		if value == "" {
			c.add(name, "is empty; leave it out where there is none")
		}
		c.try(name, events.Event{DataSchema: value})
	case "datacontenttype":
		c.event.ContentType = value
		if value == "" {
			c.add(name, "is empty; leave it out where there is none")
		}
		c.try(name, events.Event{ContentType: value})
	default:
		c.extension(name, value)
	}
}

// try validates one attribute of an event and reports it by its name.
func (c *cloudEvent) try(name string, e events.Event) {
	e.Type = "any"
	if err := e.Validate(); err != nil {
		c.add(name, eventIssue(err).Message)
	}
}

func (c *cloudEvent) extension(name string, value any) {
	extensions := map[string]any{name: value}
	c.try(name, events.Event{Extensions: extensions})
	if c.event.Extensions == nil {
		c.event.Extensions = extensions
	}
	c.event.Extensions[name] = value
}

// finish checks the event as a whole.
func (c *cloudEvent) finish() (events.Event, *Problem) {
	for i, name := range []string{"id", "source", "type", "specversion"} {
		if c.seen&(1<<i) == 0 {
			c.add(name, "is required")
		}
	}
	return c.check(c.event)
}

// decodeCloudEvent reads a CloudEvent in its JSON form.
func decodeCloudEvent(raw []byte, prefix string) (events.Event, *Problem) {
	members, err := strictjson.Object(raw)
	if err != nil {
		return events.Event{}, malformed(err.Under(strings.TrimSuffix(prefix, ".")))
	}
	c := cloudEvent{fields: fields{prefix: prefix}}
	var data, encoded *strictjson.Member
	for i, m := range members {
		switch {
		case m.Name == "data":
			data = &members[i]
		case m.Name == "data_base64":
			encoded = &members[i]
		case m.Raw[0] == '"':
			c.attribute(m.Name, strictjson.Text(m.Raw))
		case string(m.Raw) == "null":
			// A null attribute counts as absent.
		case m.Raw[0] == '{' || m.Raw[0] == '[':
			c.add(m.Name, "must not be an object or array")
		case wellKnown(m.Name):
			c.add(m.Name, "must be a string")
		case m.Raw[0] == 't' || m.Raw[0] == 'f':
			c.extension(m.Name, m.Raw[0] == 't')
		default:
			var n int32
			if json.Unmarshal(m.Raw, &n) != nil {
				c.add(m.Name, "must be an integer of 32 bits; write other numbers as text")
				continue
			}
			c.extension(m.Name, n)
		}
	}
	// The type of the data depends on an attribute that may come after it.
	switch {
	case data != nil && encoded != nil:
		c.add("data", "data and data_base64 exclude each other")
	case data != nil:
		c.data(*data)
	case encoded != nil:
		c.encodedData(*encoded)
	}
	return c.finish()
}

// data reads the member data: JSON, or a string that holds text of another type.
func (c *cloudEvent) data(m strictjson.Member) {
	switch {
	case c.event.JSON():
		c.event.Data = m.Raw
	case m.Raw[0] == '"':
		c.event.Data = []byte(strictjson.Text(m.Raw))
	case string(m.Raw) != "null":
		c.add("data", "must be a string if datacontenttype is not JSON; other bytes go into data_base64")
	}
}

func (c *cloudEvent) encodedData(m strictjson.Member) {
	if string(m.Raw) == "null" {
		return
	}
	data, err := base64.StdEncoding.DecodeString(c.text(m))
	if err != nil {
		c.add("data_base64", "is not base64")
	} else if c.event.JSON() {
		if bad := strictjson.Check(data, 1); bad != nil {
			c.add("data_base64", bad.Error()+"; for other data set datacontenttype, such as application/octet-stream")
		}
	}
	c.event.Data = data
}

func wellKnown(name string) bool {
	switch name {
	case "specversion", "id", "source", "type", "subject", "time", "dataschema", "datacontenttype":
		return true
	}
	return false
}
