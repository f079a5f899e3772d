package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"posthorn/events"
	"posthorn/outbox"
	"posthorn/services/internal/eventlog"
	"posthorn/services/internal/groupcommit"
)

// Product adds an application's own routes to the API. They pass the same
// checks, appear in the same document and metrics, and append events as the API
// does.
type Product interface {
	// Mount adds the routes, once, before the API serves.
	Mount(h *Host)
	// Run does the work that the routes wait for, until ctx ends and the remaining work is done.
	Run(ctx context.Context) error
}

// Host is the API as a Product sees it.
type Host struct{ api *API }

// Handle adds a plain route, described by the operation. An error of the
// handler becomes a problem; the handler must not have written a response by
// then.
func (h *Host) Handle(op *huma.Operation, handler func(http.ResponseWriter, *http.Request) error) {
	h.api.huma.OpenAPI().AddOperation(op)
	h.api.router.Method(op.Method, op.Path, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := handler(w, r); err != nil {
			h.api.fail(w, r, err)
		}
	}))
}

// Register adds a route that is declared through huma, like the API's own.
func Register[I, O any](h *Host, op huma.Operation, handler func(context.Context, *I) (*O, error)) {
	register(h.api, op, handler)
}

// SchemaOf is the schema of a type in the document.
func SchemaOf[T any](h *Host) *huma.Schema { return schemaOf[T](h.api) }

// IdempotencyParam describes the header Idempotency-Key of a route whose handler
// makes it the event's id.
func (h *Host) IdempotencyParam() *huma.Param { return eventKeyParam() }

// AcceptedResponses describe the responses of a route that ends with Accept.
func (h *Host) AcceptedResponses() map[string]*huma.Response {
	return map[string]*huma.Response{
		"202":     answer("Committed", mediaJSON, schemaOf[AcceptedEvent](h.api)),
		"default": answer("Error", "application/problem+json", schemaOf[Problem](h.api)),
	}
}

// Append appends an event for the request's actor, together with those of other
// requests.
func (h *Host) Append(ctx context.Context, e events.Event) (outbox.Result, error) {
	return h.api.appendOne(ctx, e)
}

// Accept responds that an event is committed.
func (h *Host) Accept(w http.ResponseWriter, result outbox.Result) { h.api.writeAccepted(w, result) }

// CommitContext limits the time of a commit that the handler makes itself.
func (h *Host) CommitContext(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, h.api.cfg.CommitTimeout)
}

// Group commits items of several requests together.
type Group[In any] struct {
	api   *API
	group *groupcommit.Group[In, eventlog.Appended]
}

// NewGroup returns a Group whose flush commits items and returns one result for
// each. name is its label in the metrics.
func NewGroup[In any](h *Host, name string, flush func(context.Context, []In) ([]eventlog.Appended, error)) *Group[In] {
	return newGroup(h.api, name, flush)
}

func newGroup[In any](a *API, name string, flush func(context.Context, []In) ([]eventlog.Appended, error)) *Group[In] {
	sizes := a.metrics.groupSize.WithLabelValues(name)
	return &Group[In]{api: a, group: groupcommit.New(groupcommit.Config{MaxItems: 500, MaxWait: a.cfg.GroupWait},
		// Bounded here, since the context belongs to no request.
		func(ctx context.Context, items []In) ([]eventlog.Appended, error) {
			ctx, cancel := context.WithTimeout(ctx, a.cfg.CommitTimeout)
			defer cancel()
			sizes.Observe(float64(len(items)))
			return flush(ctx, items)
		})}
}

// Run commits until ctx ends, then commits the remaining items.
func (g *Group[In]) Run(ctx context.Context) error {
	return g.group.Run(ctx) //nolint:wrapcheck // it says what failed
}

// Commit hands an item to the group and waits for its commit, at most for the
// CommitTimeout. If the client disconnects first, the item is still committed.
func (g *Group[In]) Commit(ctx context.Context, item In) (outbox.Result, error) {
	ctx, cancel := context.WithTimeout(ctx, g.api.cfg.CommitTimeout)
	defer cancel()
	got, err := g.group.Do(ctx, item)
	if err == nil {
		err = got.Err
	}
	return got.Result, err
}

// NewProblem returns an error response with a status and a detail.
func NewProblem(status int, detail string, issues ...FieldIssue) *Problem {
	return problem(status, detail, issues...)
}

// Invalid is the problem for invalid fields.
func Invalid(issues ...FieldIssue) *Problem { return invalid(issues...) }

// ReadJSON reads a body that is JSON or empty. Its errors are problems.
func ReadJSON(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	body, p := readBody(w, r)
	if p != nil {
		return nil, p
	}
	if len(body) == 0 {
		return nil, nil
	}
	media, p := mediaType(r)
	if p == nil && media != mediaJSON {
		p = unsupported(media)
	}
	if p != nil {
		return nil, p
	}
	return body, nil
}

// IdempotencyKey returns the header's key, which becomes an event's id, or "".
// Its error is a problem.
func IdempotencyKey(r *http.Request) (string, error) {
	key, p := idempotencyKey(r)
	if p != nil {
		return "", p
	}
	return key, nil
}

// CheckOrigin returns a problem for a request that a page of another origin
// made a browser send. The API checks every method but GET itself.
func CheckOrigin(r *http.Request) error {
	if p := checkOrigin(r); p != nil {
		return p
	}
	return nil
}

// TraceParent returns the request's header (W3C Trace Context), or "" if it is
// invalid.
func TraceParent(r *http.Request) string {
	if parent := r.Header.Get("Traceparent"); validTraceparent(parent) {
		return parent
	}
	return ""
}
