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

// Problem is what the API answers instead of a result (RFC 9457).
type Problem struct { //nolint:errname // its name is the schema's in the OpenAPI document
	Type   string       `json:"type" doc:"A reference to what this kind of problem is" example:"about:blank"`
	Title  string       `json:"title" doc:"The kind of problem"`
	Status int          `json:"status" doc:"The HTTP status" example:"422"`
	Detail string       `json:"detail,omitempty" doc:"What is wrong, and what to do about it"`
	Errors []FieldIssue `json:"errors,omitempty" doc:"Invalid fields, if any"`

	header http.Header
}

// FieldIssue says what is wrong with one field.
type FieldIssue struct {
	Location string `json:"location" doc:"Where the field is: body, query, path or header" example:"body"`
	Field    string `json:"field" doc:"The field, such as eventTypes[1]; empty for the whole" example:"url"`
	Message  string `json:"message" doc:"What is wrong with it"`
}

func (p *Problem) Error() string {
	if p.Detail != "" {
		return p.Detail
	}
	return p.Title
}

// GetStatus is the status that huma writes it with.
func (p *Problem) GetStatus() int { return p.Status }

// GetHeaders are the headers that go with the problem.
func (p *Problem) GetHeaders() http.Header { return p.header }

// ContentType is the one of a problem, whatever the client accepts.
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
	_, _ = w.Write(append(body, '\n')) // nobody is left to tell
}

// invalid is the problem for fields of the body that are wrong.
func invalid(issues ...FieldIssue) *Problem {
	detail := "The request has fields that are not valid."
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

// malformed is the problem for a body that is not the JSON that it should be.
func malformed(err *strictjson.Error) *Problem {
	p := invalid(inBody(err.Path, err.Message))
	p.Status, p.Title = http.StatusBadRequest, http.StatusText(http.StatusBadRequest)
	return p
}

// retryAfter is what a client is asked to wait while the database is away.
const retryAfter = "1"

// translate is the one place where errors become problems. What it does not
// know is a 500 that says nothing; logging it is the caller's part.
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
		return problem(http.StatusNotFound, "There is nothing with this id.")
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

// eventIssue names the field that an events.ErrInvalid is about: its text is
// "invalid event: <field>: <what>", perhaps with something before it.
func eventIssue(err error) FieldIssue {
	_, text, _ := strings.Cut(err.Error(), events.ErrInvalid.Error()+": ")
	field, message, ok := strings.Cut(text, ": ")
	if !ok {
		return inBody("", text)
	}
	return inBody(field, message)
}

// humaProblem makes what huma reports by itself look like all other problems.
// The values that huma quotes are left out: they may be secrets.
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
