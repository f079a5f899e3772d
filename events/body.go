package events

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"
)

// AppendBody appends the JSON object that a subscriber receives:
//
//	{"id":"evt_...","type":"LIKED_PHOTO","timestamp":"2026-01-02T03:04:05.678901Z","subject":"photo/123","data":{...}}
//
// timestamp is OccurredAt in UTC (RFC 3339); subject is left out when empty;
// data is the bytes that were given.
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
	dst = append(dst, `,"data":`...)
	if len(e.Data) == 0 {
		dst = append(dst, "null"...)
	} else {
		dst = append(dst, e.Data...)
	}
	return append(dst, '}')
}

// ParseBody reads what AppendBody wrote. Position, Account, Metadata and
// RecordedAt are not part of the body.
func ParseBody(body []byte) (Event, error) {
	var b struct {
		ID        string          `json:"id"`
		Type      string          `json:"type"`
		Timestamp time.Time       `json:"timestamp"`
		Subject   string          `json:"subject"`
		Data      json.RawMessage `json:"data"`
	}
	if err := json.Unmarshal(body, &b); err != nil {
		return Event{}, fmt.Errorf("%w: body: %w", ErrInvalid, err)
	}
	e := Event{ID: b.ID, Type: b.Type, Subject: b.Subject, Data: b.Data, OccurredAt: b.Timestamp}
	if e.ID == "" {
		return Event{}, fmt.Errorf("%w: id: empty", ErrInvalid)
	}
	return e, e.Validate()
}

// appendString appends s as a JSON string. Nearly all of ours need no
// escaping, which is worth a look before encoding/json is asked.
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
