package events

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"strings"
)

// Limits of the attributes, in bytes.
const (
	MaxSourceBytes      = 1 << 10 // of a source, an id at a source, a schema
	MaxMediaTypeBytes   = 256
	MaxAttributeName    = 64
	MaxAttributesBytes  = 15 << 10 // all of them, as the text of Postgres' jsonb
	attributeID         = "id"
	attributeSource     = "source"
	attributeSchema     = "dataschema"
	attributeMediaType  = "datacontenttype"
	uriCharacters       = "-._~:/?#[]@!$&'()*+,;="
	mediaTypeCharacters = "!#$&^_.+-"
)

// JSON reports whether Data is JSON by its ContentType: application/json,
// text/json, anything that ends in +json, or none at all.
func (e Event) JSON() bool {
	if e.ContentType == "" {
		return true
	}
	media := mediaType(e.ContentType)
	return media == "application/json" || media == "text/json" || strings.HasSuffix(media, "+json")
}

func mediaType(contentType string) string {
	media, _, _ := strings.Cut(contentType, ";")
	return strings.ToLower(strings.Trim(media, " \t"))
}

// Attributes returns the event's further attributes, under the names of the
// CloudEvents specification, as the outbox stores them; nil if there are none.
func (e Event) Attributes() map[string]any {
	if e.Source == "" && e.SourceID == "" && e.DataSchema == "" && e.ContentType == "" && len(e.Extensions) == 0 {
		return nil
	}
	attributes := make(map[string]any, len(e.Extensions)+4)
	maps.Copy(attributes, e.Extensions)
	for name, value := range map[string]string{
		attributeSource: e.Source, attributeID: e.SourceID, attributeSchema: e.DataSchema, attributeMediaType: e.ContentType,
	} {
		if value != "" {
			attributes[name] = value
		}
	}
	return attributes
}

// ParseAttributes sets the event's fields from the attributes, a JSON object.
// An attribute that is not allowed there is an error, and is not set.
func (e *Event) ParseAttributes(attributes []byte) error {
	decoder := json.NewDecoder(bytes.NewReader(attributes))
	decoder.UseNumber()
	var values map[string]any
	if err := decoder.Decode(&values); err != nil {
		return fmt.Errorf("%w: attributes: %w", ErrInvalid, err)
	}
	read := *e
	read.Source, read.SourceID, read.DataSchema, read.ContentType, read.Extensions = "", "", "", "", nil
	for name, value := range values {
		field := map[string]*string{
			attributeSource: &read.Source, attributeID: &read.SourceID,
			attributeSchema: &read.DataSchema, attributeMediaType: &read.ContentType,
		}[name]
		if field != nil {
			text, ok := value.(string)
			if !ok || text == "" {
				return fmt.Errorf("%w: %s: want text", ErrInvalid, name)
			}
			*field = text
			continue
		}
		if number, ok := value.(json.Number); ok {
			n, err := parseInteger(number.String())
			if err != nil {
				return fmt.Errorf("%w: extension %q: %w", ErrInvalid, name, err)
			}
			value = n
		}
		if read.Extensions == nil {
			read.Extensions = make(map[string]any, len(values))
		}
		read.Extensions[name] = value
	}
	if err := read.validateAttributes(); err != nil {
		return err
	}
	*e = read
	return nil
}

// parseInteger reads a CloudEvents Integer. 1.0 and 1e3 are integers too: JSON
// has one kind of number, and so has Postgres.
func parseInteger(text string) (int32, error) {
	var n float64
	if err := json.Unmarshal([]byte(text), &n); err != nil || n != math.Trunc(n) || n < math.MinInt32 || n > math.MaxInt32 {
		return 0, errors.New("want an integer of 32 bits")
	}
	return int32(n), nil
}

func (e Event) validateAttributes() error {
	switch {
	case e.Source != "" && !validURI(e.Source):
		return fmt.Errorf("%w: source: want a URI reference of at most %d bytes (RFC 3986)", ErrInvalid, MaxSourceBytes)
	case e.DataSchema != "" && (!validURI(e.DataSchema) || !hasScheme(e.DataSchema)):
		return fmt.Errorf("%w: dataSchema: want an absolute URI of at most %d bytes (RFC 3986)", ErrInvalid, MaxSourceBytes)
	case e.ContentType != "" && !validMediaType(e.ContentType):
		return fmt.Errorf("%w: dataContentType: want a media type such as text/plain", ErrInvalid)
	case len(e.Extensions) == 0:
		return nil
	}
	size := 0
	for name, value := range e.Attributes() {
		switch v := value.(type) {
		case string:
			if !validText(v) {
				return fmt.Errorf("%w: extension %q: not UTF-8 text", ErrInvalid, name)
			}
			size += jsonbSize(v)
		case bool, int32:
			size += len(fmt.Sprint(v))
		default:
			return fmt.Errorf("%w: extension %q: want a string, bool or int32, not %T", ErrInvalid, name, value)
		}
		if name == attributeID {
			size -= jsonbSize(e.SourceID)
			continue
		}
		size += jsonbSize(name) + 4
	}
	for name := range e.Extensions {
		if err := validateExtensionName(name); err != nil {
			return err
		}
	}
	if size > MaxAttributesBytes {
		return fmt.Errorf("%w: extensions: longer than %d bytes", ErrInvalid, MaxAttributesBytes)
	}
	return nil
}

func validateExtensionName(name string) error {
	switch name {
	case attributeID, attributeSource, attributeSchema, attributeMediaType, "specversion", "type", "subject", "time", "data":
		return fmt.Errorf("%w: extension %q: the name is one of CloudEvents' own", ErrInvalid, name)
	}
	for i := range len(name) {
		if c := name[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return fmt.Errorf("%w: extension %q: want a name of lower-case letters and digits", ErrInvalid, name)
		}
	}
	if name == "" || len(name) > MaxAttributeName {
		return fmt.Errorf("%w: extension %q: want a name of 1 to %d bytes", ErrInvalid, name, MaxAttributeName)
	}
	return nil
}

// validURI reports whether s has only the characters of a URI reference.
func validURI(s string) bool {
	if len(s) > MaxSourceBytes {
		return false
	}
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case alphanumeric(c) || strings.IndexByte(uriCharacters, c) >= 0:
		case c == '%' && i+2 < len(s) && hexadecimal(s[i+1]) && hexadecimal(s[i+2]):
			i += 2
		default:
			return false
		}
	}
	return true
}

func hasScheme(uri string) bool {
	scheme, rest, ok := strings.Cut(uri, ":")
	if !ok || rest == "" || scheme == "" || !letter(scheme[0]) {
		return false
	}
	for i := range len(scheme) {
		if c := scheme[i]; !alphanumeric(c) && c != '+' && c != '.' && c != '-' {
			return false
		}
	}
	return true
}

func validMediaType(s string) bool {
	media, parameters, found := strings.Cut(s, ";")
	if found {
		media = strings.TrimRight(media, " \t")
	}
	kind, subtype, _ := strings.Cut(media, "/")
	for _, token := range []string{kind, subtype} {
		for i := range len(token) {
			if !alphanumeric(token[i]) && strings.IndexByte(mediaTypeCharacters, token[i]) < 0 {
				return false
			}
		}
		if token == "" {
			return false
		}
	}
	for i := range len(parameters) {
		if c := parameters[i]; c != '\t' && (c < ' ' || c > '~') {
			return false
		}
	}
	return len(s) <= MaxMediaTypeBytes
}

func letter(c byte) bool       { return c|0x20 >= 'a' && c|0x20 <= 'z' }
func alphanumeric(c byte) bool { return letter(c) || c >= '0' && c <= '9' }
func hexadecimal(c byte) bool  { return c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'f' }

// jsonbSize is the length of a text within the text of a jsonb.
func jsonbSize(s string) int {
	n := len(s) + 2
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"' || c == '\\' || c == '\n' || c == '\r' || c == '\t' || c == '\b' || c == '\f':
			n++
		case c < ' ':
			n += 5
		}
	}
	return n
}
