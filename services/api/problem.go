package api

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"regexp"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"posthorn/events"
	"posthorn/events/strictjson"
	"posthorn/outbox"
	"posthorn/services/internal/eventlog"
	"posthorn/services/internal/groupcommit"
	"posthorn/services/internal/operate"
	"posthorn/services/internal/postgres"
	"posthorn/services/internal/subscription"
)

// Problem is an error response of the API (RFC 9457).
type Problem struct { //nolint:errname // its name is the schema's in the OpenAPI document
	Type   string       `json:"type" doc:"A URI that identifies the kind of problem" example:"about:blank"`
	Title  string       `json:"title" doc:"The kind of problem"`
	Status int          `json:"status" doc:"The HTTP status" example:"422"`
	Detail string       `json:"detail,omitempty" doc:"The cause, and how to fix it"`
	Errors []FieldIssue `json:"errors,omitempty" doc:"Invalid fields, if any"`

	header http.Header
}

// FieldIssue describes one invalid field.
type FieldIssue struct {
	Location string `json:"location" doc:"Where the field is: body, query, path or header" example:"body"`
	Field    string `json:"field" doc:"The field, such as eventTypes[1]; empty for the whole body" example:"url"`
	Message  string `json:"message" doc:"Why the field is invalid"`
}

func (p *Problem) Error() string {
	if p.Detail != "" {
		return p.Detail
	}
	return p.Title
}

// GetStatus returns the status for huma to write.
func (p *Problem) GetStatus() int { return p.Status }

// GetHeaders returns the problem's headers for huma to write.
func (p *Problem) GetHeaders() http.Header { return p.header }

// ContentType returns the media type of a problem, whatever the client accepts.
func (p *Problem) ContentType(string) string { return "application/problem+json" }

func problem(status int, detail string, issues ...FieldIssue) *Problem {
	return &Problem{Type: "about:blank", Title: http.StatusText(status), Status: status, Detail: detail, Errors: issues}
}

func (p *Problem) with(header, value string) *Problem {
	if p.header == nil {
		p.header = http.Header{}
	}
	p.header.Set(header, value)
	return p
}

func (p *Problem) write(w http.ResponseWriter) {
	maps.Copy(w.Header(), p.header)
	body, err := json.Marshal(p)
	if err != nil {
		body = []byte(`{"type":"about:blank","title":"Internal Server Error","status":500}`)
	}
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(p.Status)
	_, _ = w.Write(append(body, '\n')) // an error means that the client is gone
}

// invalid is the problem for invalid fields.
func invalid(issues ...FieldIssue) *Problem {
	detail := "The request has invalid fields."
	if len(issues) == 1 && issues[0].Field != "" {
		detail = issues[0].Field + ": " + issues[0].Message
	} else if len(issues) == 1 {
		detail = issues[0].Location + ": " + issues[0].Message
	}
	return problem(http.StatusUnprocessableEntity, detail, issues...)
}

func inBody(field, message string) FieldIssue {
	return FieldIssue{Location: "body", Field: field, Message: message}
}

// malformed is the problem for a body that is not the expected JSON.
func malformed(err *strictjson.Error) *Problem {
	p := invalid(inBody(err.Path, err.Message))
	p.Status, p.Title = http.StatusBadRequest, http.StatusText(http.StatusBadRequest)
	return p
}

// retryAfter is the Retry-After header, in seconds, while the database is unavailable.
const retryAfter = "1"

// translate is the one place where errors become problems. An unknown error
// becomes a 500 without details; the caller logs it.
func translate(err error) *Problem {
	var (
		p       *Problem
		fields  subscription.InvalidError
		clashes *eventlog.ConflictError
		state   operate.StateError
		text    *strictjson.Error
	)
	switch {
	case errors.As(err, &p):
		return p
	case errors.As(err, &fields):
		issues := make([]FieldIssue, len(fields))
		for i, f := range fields {
			issues[i] = inBody(f.Field, f.Message)
		}
		return invalid(issues...)
	case errors.As(err, &state):
		return problem(http.StatusConflict, state.Message)
	case errors.As(err, &clashes):
		p := problem(http.StatusConflict, "Some ids are taken by events with other content; nothing of the batch was stored.")
		for _, i := range clashes.Indexes {
			p.Errors = append(p.Errors, inBody("["+strconv.Itoa(i)+"].id", "is taken by an event with other content"))
		}
		return p
	case errors.Is(err, outbox.ErrConflict):
		return problem(http.StatusConflict, "The idempotency id is taken by another event: the same id was used before with other content.",
			inBody("id", "is taken by an event with other content"))
	case errors.Is(err, events.ErrInvalid):
		return invalid(eventIssue(err))
	case errors.As(err, &text):
		return malformed(text)
	case errors.Is(err, postgres.ErrNotFound):
		return problem(http.StatusNotFound, "Nothing has this id.")
	case errors.Is(err, postgres.ErrOutcomeUnknown), errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return problem(http.StatusServiceUnavailable,
			"The connection to the database was lost, or it is too slow, and the request may have been accepted. "+
				"Send it again with the same id (field id, header Idempotency-Key, or userId for a like) and it counts once.").
			with("Retry-After", retryAfter)
	case errors.Is(err, postgres.ErrUnavailable), errors.Is(err, groupcommit.ErrStopped):
		return problem(http.StatusServiceUnavailable, "The database is unavailable; nothing was stored. Try again.").
			with("Retry-After", retryAfter)
	default:
		return problem(http.StatusInternalServerError, "")
	}
}

// eventIssue names the field of an events.ErrInvalid: its text is "invalid
// event: <field>: <reason>", possibly with a prefix.
func eventIssue(err error) FieldIssue {
	_, text, _ := strings.Cut(err.Error(), events.ErrInvalid.Error()+": ")
	field, message, ok := strings.Cut(text, ": ")
	if !ok {
		return inBody("", text)
	}
	return inBody(field, message)
}

// humaProblem gives huma's own errors the form of all other problems. It leaves
// out the values that huma quotes: they may be secrets.
func humaProblem(status int, detail string, errs ...error) huma.StatusError {
	if status >= http.StatusInternalServerError {
		return translate(errors.Join(errs...))
	}
	p := problem(status, detail)
	missing := regexp.MustCompile(`^expected required property (\S+) to be present$`)
	for _, err := range errs {
		var detailer huma.ErrorDetailer
		if err == nil || !errors.As(err, &detailer) {
			continue
		}
		d := detailer.ErrorDetail()
		location, field, _ := strings.Cut(d.Location, ".")
		if location == "body" || location == "query" || location == "path" || location == "header" {
			message := d.Message
			if m := missing.FindStringSubmatch(message); m != nil {
				message = "is required"
				if field != "" {
					field += "."
				}
				field += m[1]
			} else if message == "unexpected property" {
				message = "is not a known field"
			}
			p.Errors = append(p.Errors, FieldIssue{Location: location, Field: field, Message: message})
		} else {
			p.Errors = append(p.Errors, FieldIssue{Location: "body", Field: d.Location, Message: d.Message})
		}
	}
	if len(p.Errors) > 0 {
		p.Detail = invalid(p.Errors...).Detail
	}
	return p
}
