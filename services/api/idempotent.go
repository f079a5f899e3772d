package api

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"posthorn/services/internal/idempotency"
	"posthorn/services/internal/operate"
)

const (
	keyHeader      = "Idempotency-Key"
	replayedHeader = "Idempotency-Replayed"
	maxKeyBytes    = 255
	forgetEvery    = 15 * time.Minute
)

// keyParam describes the header for the routes of huma. For the routes that
// only append it is the event's id.
func keyParam() *huma.Param {
	return &huma.Param{
		Name: keyHeader, In: "header", Schema: &huma.Schema{Type: huma.TypeString},
		Description: "A key of your own. For a day, repeating the request with the same key returns the first response, marked " +
			replayedHeader + ": true, and changes nothing; another request with it is a 422, and one while the first is in flight a 409. " +
			"A request that fails leaves the key free.",
	}
}

func changes(method string) bool {
	return method != http.MethodGet && method != http.MethodHead && method != http.MethodOptions
}

// errFailed rolls back a request whose response is an error.
var errFailed = errors.New("the request failed")

// answerKept is the stored form of a response.
type answerKept struct {
	Header http.Header `json:"header"`
	Body   []byte      `json:"body"`
}

// idempotent carries out an unsafe request with an Idempotency-Key once. It
// runs inside spooled, whose response it stores in the transaction of the
// request.
func (a *API) idempotent(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer, spooled := w.(*spool)
		if !spooled || !changes(r.Method) || len(r.Header.Values(keyHeader)) == 0 {
			next.ServeHTTP(w, r)
			return
		}
		if err := a.once(answer, r, next); err != nil {
			p := translate(err)
			a.logFailure(r.Context(), p, err)
			answer.reset()
			p.write(answer)
		}
	})
}

func (a *API) once(answer *spool, r *http.Request, next http.Handler) error {
	key, p := clientKey(r)
	if p != nil {
		return p
	}
	// The request holds a connection and its handler may take another: without
	// a bound, requests that hold one could wait for each other.
	if err := a.keyedRequests.Acquire(r.Context(), 1); err != nil {
		return fmt.Errorf("wait for a connection: %w", err)
	}
	defer a.keyedRequests.Release(1)
	mark, err := fingerprint(r)
	if err != nil {
		return err
	}
	done, replayed, err := a.cfg.Operations.Once(r.Context(), actor(r.Context()), key, mark, func(ctx context.Context) (operate.Answer, error) {
		next.ServeHTTP(answer, r.WithContext(ctx))
		if answer.status >= http.StatusBadRequest {
			return operate.Answer{}, errFailed
		}
		content, err := json.Marshal(answerKept{Header: answer.header, Body: answer.body.Bytes()})
		if err != nil {
			return operate.Answer{}, fmt.Errorf("keep answer: %w", err)
		}
		return operate.Answer{Status: answer.status, Content: content}, nil
	})
	var kept answerKept
	if err == nil && replayed {
		err = json.Unmarshal(done.Content, &kept)
	}
	switch {
	case errors.Is(err, errFailed):
		return nil
	case err != nil && replayed:
		a.cfg.Logger.WarnContext(r.Context(), "response of idempotent request cannot be read", slog.Any("error", err))
		return problem(http.StatusConflict, "This request was carried out before, but its response cannot be read with the current "+
			"POSTHORN_SECRET_KEY. Check its effect instead of repeating it.")
	case err != nil || !replayed:
		return keyProblem(err)
	}
	answer.status = done.Status
	answer.header = kept.Header
	answer.header.Set(replayedHeader, "true")
	_, _ = answer.body.Write(kept.Body) // never fails
	return nil
}

func keyProblem(err error) error {
	switch {
	case errors.Is(err, idempotency.ErrKeyBusy):
		return problem(http.StatusConflict, "A request with this Idempotency-Key is in flight. Send it again when it is done.",
			FieldIssue{Location: "header", Field: keyHeader, Message: "is in use by a request in flight"}).with("Retry-After", retryAfter)
	case errors.Is(err, idempotency.ErrKeyReused):
		return invalid(FieldIssue{Location: "header", Field: keyHeader, Message: "was used with another request in the last 24 hours; use a new key"})
	default:
		return err
	}
}

// fingerprint identifies the request. Both spellings of the path of
// subscriptions give the same one.
func fingerprint(r *http.Request) ([]byte, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, fmt.Errorf("read body: %w", err)
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	path := r.URL.EscapedPath()
	if rest, ok := strings.CutPrefix(path, "/subscriptions"); ok {
		path = "/subscription" + rest
	}
	hash := sha256.New()
	for _, part := range []string{r.Method, path, r.URL.RawQuery, r.Header.Get("If-Match"), string(body)} {
		_, _ = fmt.Fprintf(hash, "%d %s\n", len(part), part) // never fails
	}
	return hash.Sum(nil), nil
}

// clientKey returns the header's key, with or without the quotes of the IETF
// draft: visible ASCII.
func clientKey(r *http.Request) (string, *Problem) {
	issue := func(message string) (string, *Problem) {
		return "", invalid(FieldIssue{Location: "header", Field: keyHeader, Message: message})
	}
	values := r.Header.Values(keyHeader)
	if len(values) > 1 {
		return issue("is given twice")
	}
	key := values[0]
	if len(key) >= 2 && key[0] == '"' && key[len(key)-1] == '"' {
		key = key[1 : len(key)-1]
	}
	switch {
	case key == "":
		return issue("is empty")
	case len(key) > maxKeyBytes:
		return issue(fmt.Sprintf("is longer than %d bytes", maxKeyBytes))
	case strings.ContainsFunc(key, func(c rune) bool { return c < '!' || c > '~' }):
		return issue("has a character that is not visible ASCII")
	}
	return key, nil
}

// forgetRequests periodically deletes old keys until ctx ends. Any number of
// processes may do so.
func (a *API) forgetRequests(ctx context.Context) error {
	ticker := time.NewTicker(forgetEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		if _, err := a.cfg.Operations.ForgetRequests(ctx); err != nil && ctx.Err() == nil {
			a.cfg.Logger.WarnContext(ctx, "old idempotency keys are not deleted", slog.Any("error", err))
		}
	}
}
