package events

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"mime"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// AppendBody appends the JSON object that a subscriber receives:
//
//	{"id":"evt_...","type":"LIKED_PHOTO","timestamp":"2026-01-02T03:04:05.678901Z","subject":"photo/123","data":{...}}
//
// timestamp is OccurredAt in UTC (RFC 3339); data has the exact bytes of Data.
// Members that the event does not have are left out: subject, and before data
// also source, sourceId, dataSchema, dataContentType and extensions. Data that
// is not JSON is a string if its media type is a text type and it is UTF-8;
// otherwise it is dataBase64, in place of data.
func (e Event) AppendBody(dst []byte) []byte {
	dst = append(dst, `{"id":`...)
	dst = appendString(dst, e.ID)
	dst = append(dst, `,"type":`...)
	dst = appendString(dst, e.Type)
	dst = append(dst, `,"timestamp":"`...)
	dst = e.OccurredAt.UTC().AppendFormat(dst, time.RFC3339Nano)
	dst = append(dst, '"')
	if e.Subject != "" {
		dst = append(dst, `,"subject":`...)
		dst = appendString(dst, e.Subject)
	}
	dst = e.appendOrigin(dst)
	switch {
	case e.JSON() && len(e.Data) == 0:
		return append(dst, `,"data":null}`...)
	case e.JSON():
		dst = append(dst, `,"data":`...)
		dst = append(dst, e.Data...)
	case e.Text():
		dst = append(dst, `,"data":`...)
		dst = appendString(dst, string(e.Data))
	default:
		dst = append(dst, `,"dataBase64":"`...)
		dst = base64.StdEncoding.AppendEncode(dst, e.Data)
		dst = append(dst, '"')
	}
	return append(dst, '}')
}

// appendOrigin appends the members that only some events have.
func (e Event) appendOrigin(dst []byte) []byte {
	for _, m := range [...]struct{ name, value string }{
		{`,"source":`, e.Source}, {`,"sourceId":`, e.SourceID}, {`,"dataSchema":`, e.DataSchema}, {`,"dataContentType":`, e.ContentType},
	} {
		if m.value != "" {
			dst = append(dst, m.name...)
			dst = appendString(dst, m.value)
		}
	}
	if len(e.Extensions) == 0 {
		return dst
	}
	dst = append(dst, `,"extensions":{`...)
	for i, name := range slices.Sorted(maps.Keys(e.Extensions)) {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendString(dst, name)
		dst = append(dst, ':')
		switch v := e.Extensions[name].(type) {
		case bool:
			dst = strconv.AppendBool(dst, v)
		case int32:
			dst = strconv.AppendInt(dst, int64(v), 10)
		default: // text, or data that Validate refuses
			dst = appendString(dst, fmt.Sprint(v))
		}
	}
	return append(dst, '}')
}

// Text reports whether Data is text other than JSON: its media type says so,
// and the bytes agree.
func (e Event) Text() bool {
	if e.JSON() || !utf8.Valid(e.Data) || bytes.IndexByte(e.Data, 0) >= 0 {
		return false
	}
	_, parameters, err := mime.ParseMediaType(e.ContentType)
	if charset := strings.ToLower(parameters["charset"]); err != nil || charset != "" && charset != "utf-8" && charset != "us-ascii" {
		return false
	}
	switch media := mediaType(e.ContentType); media {
	case "application/xml", "application/yaml", "application/javascript", "application/x-www-form-urlencoded", "application/x-ndjson":
		return true
	default:
		return strings.HasPrefix(media, "text/") || strings.HasSuffix(media, "+xml") || strings.HasSuffix(media, "+yaml")
	}
}

// ParseBody parses the output of AppendBody. Position, Account, Metadata and
// RecordedAt are not part of the body.
func ParseBody(body []byte) (Event, error) {
	var b struct {
		ID          string          `json:"id"`
		Type        string          `json:"type"`
		Timestamp   time.Time       `json:"timestamp"`
		Subject     string          `json:"subject"`
		Source      string          `json:"source"`
		SourceID    string          `json:"sourceId"`
		DataSchema  string          `json:"dataSchema"`
		ContentType string          `json:"dataContentType"`
		Extensions  json.RawMessage `json:"extensions"`
		Data        json.RawMessage `json:"data"`
		DataBase64  []byte          `json:"dataBase64"`
	}
	if err := json.Unmarshal(body, &b); err != nil {
		return Event{}, fmt.Errorf("%w: body: %w", ErrInvalid, err)
	}
	e := Event{ID: b.ID, Type: b.Type, Subject: b.Subject, Data: b.Data, OccurredAt: b.Timestamp}
	if len(b.Extensions) > 0 {
		if err := e.ParseAttributes(b.Extensions); err != nil {
			return Event{}, err
		}
	}
	e.Source, e.SourceID, e.DataSchema, e.ContentType = b.Source, b.SourceID, b.DataSchema, b.ContentType
	if !e.JSON() {
		e.Data = b.DataBase64
		if len(b.Data) > 0 {
			var text string
			if err := json.Unmarshal(b.Data, &text); err != nil {
				return Event{}, fmt.Errorf("%w: data: want a string, since it is %q", ErrInvalid, b.ContentType)
			}
			e.Data = []byte(text)
		}
	}
	if err := ValidateID(e.ID); err != nil {
		return Event{}, err
	}
	// The data may be older than the rules for it, and is JSON.
	check := e
	check.Data = nil
	return e, check.Validate()
}

// appendString appends s as a JSON string. Nearly all of ours need no escaping,
// so it pays to check before calling encoding/json.
func appendString(dst []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			var buf bytes.Buffer
			enc := json.NewEncoder(&buf)
			enc.SetEscapeHTML(false)
			_ = enc.Encode(s) // a string always encodes
			return append(dst, bytes.TrimSuffix(buf.Bytes(), []byte("\n"))...)
		}
	}
	dst = append(dst, '"')
	dst = append(dst, s...)
	return append(dst, '"')
}
