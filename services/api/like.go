package api

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/go-chi/chi/v5"

	"posthorn/events/strictjson"
	"posthorn/outbox"
	"posthorn/services/internal/eventlog"
	"posthorn/services/internal/photo"
	"posthorn/services/internal/postgres"
)

// Limits of what a like names, in bytes.
const (
	maxPhotoIDBytes = 256
	maxUserIDBytes  = 256
)

// getLike is what the first experiment's `curl localhost:3000/like/1` does. A
// browser that a foreign page sends here is turned away, as it is for the
// other methods.
func (a *API) getLike(w http.ResponseWriter, r *http.Request) {
	if refuseForeignPage(w, r) {
		return
	}
	like, p := decodeLike(r, nil)
	if p != nil {
		p.write(w)
		return
	}
	a.like(w, r, like)
}

func (a *API) postLike(w http.ResponseWriter, r *http.Request) {
	body, p := readBody(w, r)
	if p != nil {
		p.write(w)
		return
	}
	like, p := decodeLike(r, body)
	if p != nil {
		p.write(w)
		return
	}
	a.like(w, r, like)
}

func (a *API) like(w http.ResponseWriter, r *http.Request, like photo.Like) {
	var (
		result outbox.Result
		err    error
	)
	if like.UserID != "" {
		result, err = commit(r.Context(), a, a.likes.Do, like)
	} else {
		result, err = a.appendLike(r, photo.LikedPhoto, like)
	}
	if err != nil {
		a.fail(w, r, err)
		return
	}
	a.writeAccepted(w, result)
}

// appendLike appends the event of a like or unlike by nobody in particular.
func (a *API) appendLike(r *http.Request, eventType string, like photo.Like) (outbox.Result, error) {
	e, err := photo.LikeEvent(eventType, like.PhotoID, "", like.Metadata)
	if err != nil {
		return outbox.Result{}, err
	}
	key, p := idempotencyKey(r)
	if p != nil {
		return outbox.Result{}, p
	}
	e.ID = key
	return a.appendOne(r.Context(), e)
}

func (a *API) deleteLike(w http.ResponseWriter, r *http.Request) {
	body, p := readBody(w, r)
	if p != nil {
		p.write(w)
		return
	}
	like, p := decodeLike(r, body)
	if p != nil {
		p.write(w)
		return
	}
	var (
		result outbox.Result
		err    error
	)
	if like.UserID != "" {
		result, err = commit(r.Context(), a, a.unlike, like)
	} else {
		result, err = a.appendLike(r, photo.UnlikedPhoto, like)
	}
	if err != nil {
		a.fail(w, r, err)
		return
	}
	a.writeAccepted(w, result)
}

// decodeLike reads photo and user from path, query and body.
func decodeLike(r *http.Request, body []byte) (photo.Like, *Problem) {
	id := chi.URLParam(r, "photoId")
	// chi matches the path as it was sent where that differs from Go's own
	// escaping of it, and only then.
	if r.URL.RawPath != "" {
		var err error
		if id, err = url.PathUnescape(id); err != nil {
			return photo.Like{}, problem(http.StatusBadRequest, "The path cannot be decoded.")
		}
	}
	like := photo.Like{PhotoID: id}
	var issues []FieldIssue
	if message := nameIssue(id, maxPhotoIDBytes); message != "" {
		issues = append(issues, FieldIssue{Location: "path", Field: "photoId", Message: message})
	}
	if r.URL.RawQuery != "" {
		query, err := url.ParseQuery(r.URL.RawQuery)
		if err != nil {
			return photo.Like{}, problem(http.StatusBadRequest, "The query cannot be decoded.")
		}
		for name, values := range query {
			switch {
			case name != "userId":
				issues = append(issues, FieldIssue{Location: "query", Field: name, Message: "is not a known parameter"})
			case len(values) > 1:
				issues = append(issues, FieldIssue{Location: "query", Field: name, Message: "is given twice"})
			default:
				like.UserID = values[0]
				if message := nameIssue(like.UserID, maxUserIDBytes); message != "" {
					issues = append(issues, FieldIssue{Location: "query", Field: name, Message: message})
				}
			}
		}
	}
	if len(body) > 0 {
		more, p := decodeLikeBody(r, body, &like)
		if p != nil {
			return photo.Like{}, p
		}
		issues = append(issues, more...)
	}
	if issues != nil {
		return photo.Like{}, invalid(issues...)
	}
	if parent := r.Header.Get("Traceparent"); validTraceparent(parent) {
		like.Metadata = map[string]string{"traceparent": parent}
	}
	return like, nil
}

func decodeLikeBody(r *http.Request, body []byte, like *photo.Like) ([]FieldIssue, *Problem) {
	media, p := mediaType(r)
	if p != nil {
		return nil, p
	}
	if media != mediaJSON {
		return nil, unsupported(media)
	}
	members, err := strictjson.Object(body)
	if err != nil {
		return nil, malformed(err)
	}
	var f fields
	for _, m := range members {
		if m.Name != "userId" {
			f.add(m.Name, "is not a known field")
			continue
		}
		if m.Raw[0] != '"' {
			f.add(m.Name, "must be a string")
			continue
		}
		user := strictjson.Text(m.Raw)
		if message := nameIssue(user, maxUserIDBytes); message != "" {
			f.add(m.Name, message)
		} else if like.UserID != "" && like.UserID != user {
			f.add(m.Name, "differs from the one in the query")
		}
		like.UserID = user
	}
	return f.issues, nil
}

func nameIssue(name string, limit int) string {
	switch {
	case name == "":
		return "is empty"
	case len(name) > limit:
		return "is longer than " + strconv.Itoa(limit) + " bytes"
	case !utf8.ValidString(name):
		return "is not UTF-8"
	case strings.ContainsFunc(name, func(c rune) bool { return c < ' ' || c == 0x7f }):
		return "has a control character in it"
	}
	return ""
}

// unlike is not grouped: it is rare beside likes, and groups of both on the
// same rows would have to agree on an order to take them in.
func (a *API) unlike(ctx context.Context, like photo.Like) (eventlog.Appended, error) {
	result, err := photo.Unlike(ctx, a.cfg.DB, like)
	if errors.Is(err, postgres.ErrNotFound) {
		err = problem(http.StatusNotFound, "This user does not like this photo.")
	}
	return eventlog.Appended{Result: result}, err
}
