package main

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"time"
	"unicode/utf8"

	"posthorn/services/internal/eventlog"
)

func printRecords(w io.Writer, records []eventlog.Record) error {
	for i := range records {
		line, err := recordLine(&records[i])
		if err != nil {
			return err
		}
		if _, err := w.Write(line); err != nil {
			return fmt.Errorf("print record: %w", err)
		}
	}
	return nil
}

// A record as a line of JSON is a lineHead, the data, and a lineTail. The data
// has its exact bytes if a line can hold them; otherwise DataBase64 has them,
// and data is the same value written differently, or null. Data that is not
// JSON is always in DataBase64.
type lineHead struct {
	Position int64         `json:"position"`
	ID       string        `json:"id"`
	Kind     eventlog.Kind `json:"kind"`
	Account  string        `json:"account"`
	Type     string        `json:"type"`
	Subject  string        `json:"subject"`
}

type lineTail struct {
	DataBase64  string            `json:"dataBase64,omitempty"`
	Source      string            `json:"source,omitempty"`
	SourceID    string            `json:"sourceId,omitempty"`
	DataSchema  string            `json:"dataSchema,omitempty"`
	ContentType string            `json:"dataContentType,omitempty"`
	Extensions  map[string]any    `json:"extensions,omitempty"`
	Metadata    map[string]string `json:"metadata"`
	OccurredAt  time.Time         `json:"occurredAt"`
	RecordedAt  time.Time         `json:"recordedAt"`
}

// recordLine returns the record as one line that is safe to display: its only
// control character is the newline at its end.
func recordLine(r *eventlog.Record) ([]byte, error) {
	data, same := []byte("null"), false
	if r.JSON() {
		data, same = printableJSON(r.Data)
	}
	behind := lineTail{
		Source: r.Source, SourceID: r.SourceID, DataSchema: r.DataSchema, ContentType: r.ContentType, Extensions: r.Extensions,
		Metadata: orEmpty(r.Metadata), OccurredAt: r.OccurredAt.UTC(), RecordedAt: r.RecordedAt.UTC(),
	}
	if !same {
		behind.DataBase64 = base64.StdEncoding.EncodeToString(r.Data)
	}
	// encoding/json would rewrite the data, so the line is assembled here.
	head, err := json.Marshal(lineHead{r.Position, r.ID, r.Kind, r.Account, r.Type, r.Subject})
	if err != nil {
		return nil, fmt.Errorf("encode record: %w", err)
	}
	tail, err := json.Marshal(behind)
	if err != nil {
		return nil, fmt.Errorf("encode record: %w", err)
	}
	head, _ = printableJSON(head)
	tail, _ = printableJSON(tail)
	line := append(head[:len(head)-1], `,"data":`...)
	line = append(line, data...)
	line = append(line, ',')
	line = append(line, tail[1:]...)
	return append(line, '\n'), nil
}

func orEmpty(m map[string]string) map[string]string {
	if m == nil {
		return map[string]string{}
	}
	return m
}

// printableJSON returns a JSON value without characters that a terminal might
// obey or hide: line breaks between its parts become spaces, control and
// direction characters in its strings become escapes. same reports whether it
// is unchanged. Invalid JSON becomes null.
func printableJSON(data []byte) (clean []byte, same bool) {
	if !utf8.Valid(data) || !json.Valid(data) {
		return []byte("null"), false
	}
	same = true
	clean = make([]byte, 0, len(data))
	for _, r := range string(data) {
		switch {
		case r == '\n' || r == '\r' || r == '\t':
			clean, same = append(clean, ' '), false
		case !printable(r):
			// In valid JSON these occur only in strings.
			clean, same = appendEscaped(clean, r), false
		default:
			clean = utf8.AppendRune(clean, r)
		}
	}
	return clean, same
}
