package api

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/go-chi/chi/v5"

	"posthorn/services/internal/web"
)

// recorder records the response. It is not wrapped further, so that the
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
				if p == http.ErrAbortHandler { //nolint:errorlint // it is never wrapped
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
		// The path and the query are left out: both may be private.
		a.cfg.Logger.DebugContext(r.Context(), "request served", slog.String("request_id", id), slog.String("method", r.Method),
			slog.String("route", route), slog.Int("status", status), slog.Duration("duration", took))
	}
}

// requestID is the client's id, if it is safe to log, or a new one.
func requestID(r *http.Request) string {
	id := r.Header.Get("X-Request-Id")
	if id == "" || len(id) > 64 || strings.ContainsFunc(id, func(c rune) bool { return c <= ' ' || c > '~' }) {
		var b [12]byte
		_, _ = rand.Read(b[:]) // never fails: see crypto/rand.Read
		return hex.EncodeToString(b[:])
	}
	return id
}

// guard admits requests with the key and refuses requests that a web page of
// another origin made a browser send.
func (a *API) guard(next http.Handler) http.Handler {
	checked := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead && r.Method != http.MethodOptions {
			if p := checkOrigin(r); p != nil {
				p.write(w)
				return
			}
		}
		next.ServeHTTP(w, r)
	})
	if a.cfg.AdminKey == "" {
		return a.cfg.Hosts.Handler(checked)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/healthz" && r.URL.Path != "/readyz" && !a.authorized(r) {
			a.refuseKey(w, r)
			return
		}
		checked.ServeHTTP(w, r)
	})
}

// checkOrigin refuses requests that a page of another origin made a browser send.
func checkOrigin(r *http.Request) *Problem {
	if web.CheckOrigin(r) == nil {
		return nil
	}
	return problem(http.StatusForbidden, "Cross-origin requests from web pages must not change anything.")
}

// refuseKey responds to a request without the right key.
func (a *API) refuseKey(w http.ResponseWriter, r *http.Request) {
	reason := "missing"
	if r.Header.Get("Authorization") != "" {
		reason = "wrong"
		if wait := a.guesses.Wrong(r); wait > 0 {
			a.metrics.unauthorized.WithLabelValues("throttled").Inc()
			problem(http.StatusTooManyRequests, "Too many requests with a wrong key. Requests with the right key are not affected.").
				with("Retry-After", strconv.Itoa(int(wait.Seconds()))).write(w)
			return
		}
	}
	a.metrics.unauthorized.WithLabelValues(reason).Inc()
	problem(http.StatusUnauthorized, "Authentication required: send the header Authorization: Bearer with the admin key.").
		with("WWW-Authenticate", `Bearer realm="posthorn"`).write(w)
}

func (a *API) authorized(r *http.Request) bool {
	scheme, key, ok := strings.Cut(r.Header.Get("Authorization"), " ")
	if !ok || !strings.EqualFold(scheme, "Bearer") {
		return false
	}
	// Hashes have one length, so the timing does not reveal the key's.
	given := sha256.Sum256([]byte(strings.TrimSpace(key)))
	return subtle.ConstantTimeCompare(given[:], a.keyHash[:]) == 1
}
