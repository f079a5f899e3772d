package photos

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"github.com/danielgtaylor/huma/v2"
	"github.com/go-chi/chi/v5"

	"posthorn/events/strictjson"
	"posthorn/outbox"
	"posthorn/services/api"
	"posthorn/services/internal/eventlog"
	"posthorn/services/internal/postgres"
	"posthorn/services/internal/web"
)

// Limits of the ids in a like, in bytes.
const (
	maxPhotoIDBytes = 256
	maxUserIDBytes  = 256
)

// LikeBody is the optional body of a like.
type LikeBody struct {
	UserID string `json:"userId,omitempty" maxLength:"256" doc:"User who likes the photo; a second like by the same user has no effect"`
}

// Photo is a photo's like count.
type Photo struct {
	ID    string `json:"id"`
	Likes int64  `json:"likes" doc:"Includes every committed like"`
}

// Product has the routes of the photos.
type Product struct {
	db    *sql.DB
	host  *api.Host
	likes *api.Group[Like]
}

// New returns a Product on a database, to be mounted by an API.
func New(db *sql.DB) *Product { return &Product{db: db} }

// Mount adds the routes.
func (p *Product) Mount(h *api.Host) {
	p.host = h
	p.likes = api.NewGroup(h, "likes", func(ctx context.Context, likes []Like) ([]eventlog.Appended, error) {
		return LikeGroup(ctx, p.db, likes)
	})
	text := &huma.Schema{Type: huma.TypeString}
	params := []*huma.Param{
		{Name: "photoId", In: "path", Required: true, Schema: text, Description: "The photo's id", Example: "123"},
		{Name: "userId", In: "query", Schema: text, Description: "User who likes the photo; a second like by the same user has no effect"},
		h.IdempotencyParam(),
	}
	body := &huma.RequestBody{Content: map[string]*huma.MediaType{"application/json": {Schema: api.SchemaOf[LikeBody](h)}}}
	for _, route := range []struct {
		id, method, summary string
		body                *huma.RequestBody
		handler             func(http.ResponseWriter, *http.Request) error
	}{
		{"like-photo-by-get", http.MethodGet, "Like a photo with a GET, for curl", nil, p.getLike},
		{"like-photo", http.MethodPost, "Like a photo", body, p.postLike},
		{"unlike-photo", http.MethodDelete, "Take a like back", body, p.deleteLike},
	} {
		h.Handle(&huma.Operation{
			OperationID: route.id, Method: route.method, Path: "/like/{photoId}", Tags: []string{"Photos"}, Summary: route.summary,
			Parameters: params, RequestBody: route.body, Responses: h.AcceptedResponses(),
		}, route.handler)
	}
	h.Handle(&huma.Operation{
		OperationID: "look-at-like", Method: http.MethodHead, Path: "/like/{photoId}", Tags: []string{"Photos"},
		Summary: "Check that a photo can be liked, without liking it", Parameters: params[:1],
		Responses: map[string]*huma.Response{"200": {Description: "The photo can be liked"}},
	}, func(http.ResponseWriter, *http.Request) error { return nil })
	api.Register(h, huma.Operation{
		OperationID: "get-photo", Method: http.MethodGet, Path: "/photos/{photoId}", Tags: []string{"Photos"},
		Summary: "Count the likes of a photo", Description: "The count is 0 for a photo without likes.",
	}, p.getPhoto)
}

// Run commits likes until ctx ends, then commits the remaining ones.
func (p *Product) Run(ctx context.Context) error { return p.likes.Run(ctx) }

func (p *Product) getPhoto(ctx context.Context, in *struct {
	ID string `path:"photoId" doc:"The photo's id" example:"123"`
},
) (*struct{ Body Photo }, error) {
	if message := web.TextProblem(in.ID, maxPhotoIDBytes); message != "" {
		return nil, api.Invalid(api.FieldIssue{Location: "path", Field: "photoId", Message: message})
	}
	likes, err := Likes(ctx, p.db, in.ID)
	if err != nil {
		return nil, fmt.Errorf("count likes: %w", err)
	}
	return &struct{ Body Photo }{Body: Photo{ID: in.ID, Likes: likes}}, nil
}

// getLike serves the first experiment, `curl localhost:3000/like/1`. It refuses
// requests that a page of another origin made a browser send, as the other
// methods do.
func (p *Product) getLike(w http.ResponseWriter, r *http.Request) error {
	if err := api.CheckOrigin(r); err != nil {
		return err
	}
	like, err := decodeLike(r, nil)
	if err != nil {
		return err
	}
	return p.like(w, r, like)
}

func (p *Product) postLike(w http.ResponseWriter, r *http.Request) error {
	like, err := readLike(w, r)
	if err != nil {
		return err
	}
	return p.like(w, r, like)
}

func (p *Product) like(w http.ResponseWriter, r *http.Request, like Like) error {
	var (
		result outbox.Result
		err    error
	)
	if like.UserID != "" {
		result, err = p.likes.Commit(r.Context(), like)
	} else {
		result, err = p.appendLike(r, LikedPhoto, like)
	}
	if err != nil {
		return err
	}
	p.host.Accept(w, result)
	return nil
}

// appendLike appends the event of an anonymous like or unlike.
func (p *Product) appendLike(r *http.Request, eventType string, like Like) (outbox.Result, error) {
	e, err := LikeEvent(eventType, like.PhotoID, "", like.Metadata)
	if err != nil {
		return outbox.Result{}, err
	}
	if e.ID, err = api.IdempotencyKey(r); err != nil {
		return outbox.Result{}, err
	}
	return p.host.Append(r.Context(), e)
}

// deleteLike is not grouped: unlikes are rare compared to likes, and groups of
// both would have to lock the same rows in the same order.
func (p *Product) deleteLike(w http.ResponseWriter, r *http.Request) error {
	like, err := readLike(w, r)
	if err != nil {
		return err
	}
	var result outbox.Result
	if like.UserID != "" {
		ctx, cancel := p.host.CommitContext(r.Context())
		defer cancel()
		if result, err = Unlike(ctx, p.db, like); errors.Is(err, postgres.ErrNotFound) {
			err = api.NewProblem(http.StatusNotFound, "This user does not like this photo.")
		}
	} else {
		result, err = p.appendLike(r, UnlikedPhoto, like)
	}
	if err != nil {
		return err
	}
	p.host.Accept(w, result)
	return nil
}

func readLike(w http.ResponseWriter, r *http.Request) (Like, error) {
	body, err := api.ReadJSON(w, r)
	if err != nil {
		return Like{}, err
	}
	return decodeLike(r, body)
}

// decodeLike reads photo and user from path, query and body.
func decodeLike(r *http.Request, body []byte) (Like, error) {
	id := chi.URLParam(r, "photoId")
	// chi matches the raw path only if it differs from Go's own escaping of the
	// path.
	if r.URL.RawPath != "" {
		var err error
		if id, err = url.PathUnescape(id); err != nil {
			return Like{}, api.NewProblem(http.StatusBadRequest, "The path cannot be decoded.")
		}
	}
	like := Like{PhotoID: id}
	var issues []api.FieldIssue
	add := func(location, field, message string) {
		if message != "" {
			issues = append(issues, api.FieldIssue{Location: location, Field: field, Message: message})
		}
	}
	add("path", "photoId", web.TextProblem(id, maxPhotoIDBytes))
	if r.URL.RawQuery != "" {
		query, err := url.ParseQuery(r.URL.RawQuery)
		if err != nil {
			return Like{}, api.NewProblem(http.StatusBadRequest, "The query cannot be decoded.")
		}
		for name, values := range query {
			switch {
			case name != "userId":
				add("query", name, "is not a known parameter")
			case len(values) > 1:
				add("query", name, "is given twice")
			default:
				like.UserID = values[0]
				add("query", name, web.TextProblem(like.UserID, maxUserIDBytes))
			}
		}
	}
	if len(body) > 0 {
		members, err := strictjson.Object(body)
		if err != nil {
			return Like{}, err
		}
		decodeLikeBody(members, &like, add)
	}
	if issues != nil {
		return Like{}, api.Invalid(issues...)
	}
	if parent := api.TraceParent(r); parent != "" {
		like.Metadata = map[string]string{"traceparent": parent}
	}
	return like, nil
}

func decodeLikeBody(members []strictjson.Member, like *Like, add func(location, field, message string)) {
	for _, m := range members {
		if m.Name != "userId" {
			add("body", m.Name, "is not a known field")
			continue
		}
		if m.Raw[0] != '"' {
			add("body", m.Name, "must be a string")
			continue
		}
		user := strictjson.Text(m.Raw)
		if message := web.TextProblem(user, maxUserIDBytes); message != "" {
			add("body", m.Name, message)
		} else if like.UserID != "" && like.UserID != user {
			add("body", m.Name, "differs from the one in the query")
		}
		like.UserID = user
	}
}
