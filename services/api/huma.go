package api

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"sync"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humachi"
	"github.com/go-chi/chi/v5"
)

// humaOnce sets huma's two package-wide settings once.
var humaOnce sync.Once //nolint:gochecknoglobals // huma has no other way to set them

func newHuma(r chi.Router, version string) huma.API {
	humaOnce.Do(func() {
		huma.NewError = humaProblem
		huma.ValidateStrictCasing = true
	})
	registry := huma.NewMapRegistry("#/components/schemas/", huma.DefaultSchemaNamer)
	return humachi.New(r, huma.Config{
		OpenAPI: &huma.OpenAPI{
			OpenAPI: "3.1.0",
			Info: &huma.Info{
				Title:   "Posthorn",
				Version: version,
				Description: "Accepts events and delivers them to subscribers. A 2xx for an event means that it is committed. " +
					"Errors are problems (RFC 9457) that name the field. Bodies are JSON in UTF-8, and may be compressed with gzip. " +
					"A page of a list ends at limit items or at about a megabyte: follow nextCursor. Every path under /subscription exists under /subscriptions too.",
			},
			Components: &huma.Components{
				Schemas: registry,
				SecuritySchemes: map[string]*huma.SecurityScheme{
					"adminKey": {Type: "http", Scheme: "bearer", Description: "The admin key; not needed in open mode."},
				},
			},
			Security: []map[string][]string{{"adminKey": {}}, {}},
		},
		Formats: map[string]huma.Format{
			"application/json": {
				Marshal: func(w io.Writer, v any) error {
					enc := json.NewEncoder(w)
					enc.SetEscapeHTML(false)
					if err := enc.Encode(v); err != nil {
						return fmt.Errorf("encode response: %w", err)
					}
					return nil
				},
				Unmarshal: json.Unmarshal,
			},
			// The media type of a Problem; see Problem.ContentType.
			"application/problem+json": {Marshal: func(w io.Writer, v any) error {
				if err := json.NewEncoder(w).Encode(v); err != nil {
					return fmt.Errorf("encode problem: %w", err)
				}
				return nil
			}},
		},
		DefaultFormat:                "application/json",
		RejectUnknownQueryParameters: true,
	})
}

// register declares an operation and, if its path is under /subscription, the
// same one under /subscriptions. Errors of the handler become problems.
func register[I, O any](a *API, op huma.Operation, handler func(context.Context, *I) (*O, error)) {
	wrapped := func(ctx context.Context, in *I) (*O, error) {
		out, err := handler(ctx, in)
		if err != nil {
			p := translate(err)
			a.logFailure(ctx, p, err)
			return nil, p
		}
		return out, nil
	}
	op.MaxBodyBytes = maxBodyBytes + 2 // the body was limited before, and huma refuses the limit itself
	op.BodyReadTimeout = -1            // and has been read
	describe := func() {
		if changes(op.Method) {
			op.Parameters = []*huma.Param{keyParam()}
		}
	}
	describe()
	huma.Register(a.huma, op, wrapped)
	if rest, ok := strings.CutPrefix(op.Path, "/subscription"); ok {
		op.Path, op.OperationID = "/subscriptions"+rest, op.OperationID+"-plural"
		op.Parameters, op.Responses, op.RequestBody = nil, nil, nil
		describe()
		huma.Register(a.huma, op, wrapped)
	}
}
