package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"

	"github.com/danielgtaylor/huma/v2"

	"posthorn/services/internal/readiness"
)

// NewEvent is the body of POST /events.
type NewEvent struct {
	ID         string          `json:"id,omitempty" maxLength:"128" doc:"Optional id, which makes the request safe to repeat: visible ASCII without dots. Generated if omitted" example:"order-7-paid"`
	Type       string          `json:"type" maxLength:"128" doc:"Words of letters, digits, _ and -, joined by dots" example:"ORDER_PAID"`
	Subject    string          `json:"subject,omitempty" maxLength:"512" doc:"Subject of the event; events of one subject are published in order" example:"order/7"`
	Data       json.RawMessage `json:"data,omitempty" doc:"Any JSON value; its bytes are kept unchanged"`
	OccurredAt string          `json:"occurredAt,omitempty" format:"date-time" doc:"When the event happened; now if omitted. timestamp is an alias"`
}

// CloudEvent is the structured form of CloudEvents 1.0.
type CloudEvent struct {
	SpecVersion     string          `json:"specversion" enum:"1.0"`
	ID              string          `json:"id" maxLength:"1024" doc:"Any text; source and id together identify the event"`
	Source          string          `json:"source" format:"uri-reference" maxLength:"1024"`
	Type            string          `json:"type" maxLength:"128" doc:"At most 16 words of letters, digits, _ and -, joined by dots"`
	Subject         string          `json:"subject,omitempty"`
	Time            string          `json:"time,omitempty" format:"date-time"`
	DataContentType string          `json:"datacontenttype,omitempty" maxLength:"256" doc:"Media type of the data; JSON if omitted"`
	DataSchema      string          `json:"dataschema,omitempty" format:"uri"`
	Data            json.RawMessage `json:"data,omitempty" doc:"Any JSON value; a string if datacontenttype is a text type other than JSON"`
	DataBase64      string          `json:"data_base64,omitempty" doc:"Data of any type, in place of data"`
}

// AcceptedBatch is the response to a batch.
type AcceptedBatch struct {
	Events []AcceptedEvent `json:"events" nullable:"false"`
}

// Health is the response of /healthz.
type Health struct {
	Status  string `json:"status"`
	Version string `json:"version"`
}

// finishDocument adds the plain handlers to the document and writes it.
func (a *API) finishDocument() error {
	for _, op := range a.plainOperations() {
		a.huma.OpenAPI().AddOperation(op)
	}
	document, err := json.Marshal(a.huma.OpenAPI())
	if err != nil {
		return fmt.Errorf("write OpenAPI document: %w", err)
	}
	a.document = document
	return nil
}

func schemaOf[T any](a *API) *huma.Schema {
	t := reflect.TypeFor[T]()
	return a.huma.OpenAPI().Components.Schemas.Schema(t, true, t.Name())
}

func answer(description, media string, schema *huma.Schema) *huma.Response {
	r := &huma.Response{Description: description}
	if media != "" {
		r.Content = map[string]*huma.MediaType{media: {Schema: schema}}
	}
	return r
}

// eventKeyParam describes the header on routes where it becomes the id of an event.
func eventKeyParam() *huma.Param {
	return &huma.Param{
		Name: "Idempotency-Key", In: "header", Schema: &huma.Schema{Type: huma.TypeString},
		Description: "An id of your own: repeating the request with the same key has no further effect; another request with it is a 409.",
	}
}

func (a *API) plainOperations() []*huma.Operation {
	text := &huma.Schema{Type: huma.TypeString}
	failed := answer("Error", "application/problem+json", schemaOf[Problem](a))
	accepted := schemaOf[AcceptedEvent](a)
	one, cloud := schemaOf[NewEvent](a), schemaOf[CloudEvent](a)
	list := func(items *huma.Schema) *huma.Schema {
		minItems, maxItems := 1, maxBatch
		return &huma.Schema{Type: huma.TypeArray, Items: items, MinItems: &minItems, MaxItems: &maxItems}
	}
	ops := []*huma.Operation{{
		OperationID: "post-events", Method: http.MethodPost, Path: "/events", Tags: []string{"Events"},
		Summary: "Append one event, or a batch of up to 1,000 atomically",
		Description: "Responds once the events are committed. CloudEvents are accepted in all three content modes; in the binary one the " +
			"attributes are ce- headers and the body is the data, of any media type. Events of two sources with the same id are two events: " +
			"the id in the response is the CloudEvent's own if it can be a webhook-id and is not taken, and otherwise one derived from source and id.",
		Parameters: []*huma.Param{eventKeyParam()},
		RequestBody: &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{
			mediaJSON:             {Schema: &huma.Schema{OneOf: []*huma.Schema{one, list(one)}}},
			mediaCloudEvent:       {Schema: cloud},
			mediaCloudEventsBatch: {Schema: list(cloud)},
		}},
		Responses: map[string]*huma.Response{
			"202": answer("Committed", mediaJSON, &huma.Schema{OneOf: []*huma.Schema{accepted, schemaOf[AcceptedBatch](a)}}), "default": failed,
		},
	}}
	open := []map[string][]string{{}}
	for _, op := range []struct {
		id, path, summary, media string
		schema                   *huma.Schema
		security                 []map[string][]string
	}{
		{"healthz", "/healthz", "Report that the process is up", mediaJSON, schemaOf[Health](a), open},
		{"readyz", "/readyz", "Report which parts of the process are ready, and why the others are not", mediaJSON, schemaOf[readiness.State](a), open},
		{"metrics", "/metrics", "Metrics for Prometheus", "text/plain", text, nil},
		{"openapi", "/openapi.json", "This document", mediaJSON, &huma.Schema{Type: huma.TypeObject}, nil},
		{"docs", "/docs", "This document as a page", "text/html", text, nil},
		{"docs-style", "/docs/style.css", "The style of that page", "text/css", text, nil},
		{"docs-script", "/docs/script.js", "The script of that page", "text/javascript", text, nil},
	} {
		o := &huma.Operation{
			OperationID: op.id, Method: http.MethodGet, Path: op.path, Tags: []string{"Operation"}, Summary: op.summary,
			Security: op.security, Responses: map[string]*huma.Response{"200": answer("OK", op.media, op.schema), "default": failed},
		}
		if op.id == "readyz" {
			o.Responses["503"] = answer("Not ready", mediaJSON, op.schema)
		}
		ops = append(ops, o)
	}
	return ops
}
