package api

import (
	"time"

	"github.com/danielgtaylor/huma/v2"

	"posthorn/events"
)

// Timestamp is the text of a time in a query or a body: huma would parse it by
// time.Parse's idea of RFC 3339.
type Timestamp string

// Schema describes it as a time. The format is an extension so that huma does
// not check it.
func (Timestamp) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{
		Type: huma.TypeString, Extensions: map[string]any{"format": "date-time"}, Examples: []any{"2026-01-31T08:00:00Z"},
	}
}

// time parses a parameter or field; an omitted one is the zero time.
func (t Timestamp) time(location, field string, issues *[]FieldIssue) time.Time {
	if t == "" {
		return time.Time{}
	}
	at, err := events.ParseTime(string(t))
	if err != nil {
		*issues = append(*issues, FieldIssue{Location: location, Field: field, Message: err.Error()})
	}
	return at
}
