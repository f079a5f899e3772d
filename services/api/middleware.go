package api

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strings"
	"time"

	"github.com/go-chi/chi/v5"
)

// recorder remembers what was answered. It is not wrapped further, so that the
// ResponseController still finds the connection through Unwrap.
type recorder struct {
	http.ResponseWriter
	status int
}

func (r *recorder) WriteHeader(status int) {
	if r.status == 0 {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(b []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	return r.ResponseWriter.Write(b)
}

func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// observe gives each request an id, counts and logs it, and turns a panic
// into a 500 that shows nothing.
func (a *API) observe(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		started := time.Now()
		id := requestID(r)
		h := w.Header()
		h["X-Request-Id"] = []string{id}
		h["X-Content-Type-Options"] = []string{"nosniff"}
		h["X-Frame-Options"] = []string{"DENY"}
		h["Referrer-Policy"] = []string{"no-referrer"}
		h["Content-Security-Policy"] = []string{"default-src 'none'; frame-ancestors 'none'"}
		h["Cache-Control"] = []string{"no-store"}
		rec := &recorder{ResponseWriter: w}
		defer func() { //nolint:contextcheck // the request's context is the one that is passed
			if p := recover(); p != nil {
				if p == http.ErrAbortHandler { //nolint:errorlint // it is panicked with as it is
					panic(p)
				}
				a.cfg.Logger.ErrorContext(r.Context(), "request panicked", slog.String("request_id", id),
					slog.Any("panic", p), slog.String("stack", string(debug.Stack())))
				if rec.status == 0 {
					problem(http.StatusInternalServerError, "").write(rec)
				}
			}
			a.finish(r, rec.status, id, time.Since(started))
		}()
		next.ServeHTTP(rec, r)
	})
}

func (a *API) finish(r *http.Request, status int, id string, took time.Duration) {
	if status == 0 {
		status = http.StatusOK
	}
	route := ""
	if rctx := chi.RouteContext(r.Context()); rctx != nil {
		route = rctx.RoutePattern()
	}
	if route == "" {
		route = "none"
	}
	a.metrics.request(r.Method, route, status, took)
	if a.cfg.Logger.Enabled(r.Context(), slog.LevelDebug) {
		// The path and the query are left out: both may hold what is private.
		a.cfg.Logger.DebugContext(r.Context(), "request served", slog.String("request_id", id), slog.String("method", r.Method),
			slog.String("route", route), slog.Int("status", status), slog.Duration("duration", took))
	}
}

// requestID is the client's, where it is harmless to log, or a new one.
func requestID(r *http.Request) string {
	id := r.Header.Get("X-Request-Id")
	if id == "" || len(id) > 64 || strings.ContainsFunc(id, func(c rune) bool { return c <= ' ' || c > '~' }) {
		var b [12]byte
		_, _ = rand.Read(b[:]) // never fails: see crypto/rand.Read
		return hex.EncodeToString(b[:])
	}
	return id
}

// guard lets in who has the key and turns away what a foreign web page makes
// a browser send.
func (a *API) guard(next http.Handler) http.Handler {
	origins := http.NewCrossOriginProtection()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if a.cfg.AdminKey != "" && r.URL.Path != "/healthz" && r.URL.Path != "/readyz" && !a.authorized(r) {
			problem(http.StatusUnauthorized, "This needs the header Authorization: Bearer with the admin key.").
				with("WWW-Authenticate", `Bearer realm="posthorn"`).write(w)
			return
		}
		if err := origins.Check(r); err != nil {
			problem(http.StatusForbidden, "Web pages of other origins may not change anything here.").write(w)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (a *API) authorized(r *http.Request) bool {
	scheme, key, ok := strings.Cut(r.Header.Get("Authorization"), " ")
	if !ok || !strings.EqualFold(scheme, "Bearer") {
		return false
	}
	// Hashes have one length, so the time tells nothing of the key's.
	given := sha256.Sum256([]byte(strings.TrimSpace(key)))
	return subtle.ConstantTimeCompare(given[:], a.keyHash[:]) == 1
}
