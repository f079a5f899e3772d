// Package api is Posthorn's HTTP API: it accepts events, manages subscriptions,
// and shows the status of both.
//
// It promises that a 2xx for an event means that the event is committed, that
// this depends on nothing but Postgres, and that every request gets a response.
// Invalid input gets a problem (RFC 9457) that names the field, and nothing is
// stored. If Postgres is unreachable the response is 503 with Retry-After. If a
// commit may or may not have happened, the response is a 503 that says so; it
// is then safe to repeat the request with the same id.
//
// Other requests that change something are carried out once per
// Idempotency-Key. Responses take a bounded amount of memory, even if clients
// do not read them.
//
// Requests that only append, which are nearly all, share commits: requests that arrive during one
// commit go into the next. Their routes are plain handlers, since huma would cost them more than it
// offers. Every other route is declared through huma, and one OpenAPI document describes them all.
package api

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"posthorn/events"
	"posthorn/services/internal/account"
	"posthorn/services/internal/operate"
	"posthorn/services/internal/readiness"
	"posthorn/services/internal/web"
)

// maxBodyBytes limits the body of every request.
const maxBodyBytes = 256 << 10

// Config of an API.
type Config struct {
	// Operations need a keyring, and at least two connections.
	Operations *operate.Operations
	// Products are mounted alongside the API's own routes.
	Products []Product
	// Addr is the address that the API will be served on. Without an AdminKey,
	// Validate refuses one that other machines can reach, unless Open allows
	// it.
	Addr     string
	AdminKey string
	Open     bool
	// Hosts are the names, besides IP addresses and localhost, that requests
	// may use if no key is needed.
	Hosts   web.Hosts
	Logger  *slog.Logger
	Version string
	// Metrics is the registry for the API's metrics, which /metrics shows; nil
	// means a new one.
	Metrics *prometheus.Registry
	// Readiness is the state that /readyz reports; the API adds itself. nil
	// means the API alone.
	Readiness *readiness.Parts
	// CommitTimeout is how long a request waits for its commit. Default 10 s.
	CommitTimeout time.Duration
	// GroupWait is how long an event waits for others to share its commit, in
	// addition to those that arrive during the previous commit. Default 0.
	GroupWait time.Duration
	// WriteTimeout is how long a client may take to read the next 64 KiB of a
	// response before it is disconnected. Default 10 s.
	WriteTimeout time.Duration
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// Validate reports the first setting that keeps an API from starting.
func (c Config) Validate() error {
	switch {
	case c.Operations == nil:
		return errors.New("api: Operations are missing")
	case c.AdminKey != "" && web.CheckKey(c.AdminKey) != nil:
		return fmt.Errorf("api: POSTHORN_ADMIN_KEY: %w", web.CheckKey(c.AdminKey))
	case c.AdminKey == "" && !c.Open && c.Addr != "" && !loopback(c.Addr):
		return fmt.Errorf("api: refusing to serve without a key on %s, which other machines can reach: "+
			"set POSTHORN_ADMIN_KEY, or POSTHORN_OPEN=true if every client may do everything", c.Addr)
	}
	return nil
}

func loopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// API is an http.Handler. It answers requests that append only while Run is
// running.
type API struct {
	cfg      Config
	router   *chi.Mux
	huma     huma.API
	metrics  *metrics
	keyHash  [sha256.Size]byte
	guesses  *web.Guesses
	document []byte

	// Events with a client's own id may wait for another transaction that uses
	// the id, so they do not share commits with the rest.
	plain, keyed *Group[events.Event]

	room          *semaphore.Weighted
	keyedRequests *semaphore.Weighted
}

// New returns an API, or the error of Validate.
func New(cfg Config) (*API, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg.Logger = cmp.Or(cfg.Logger, slog.New(slog.DiscardHandler))
	cfg.CommitTimeout = cmp.Or(cfg.CommitTimeout, 10*time.Second)
	cfg.WriteTimeout = cmp.Or(cfg.WriteTimeout, 10*time.Second)
	cfg.Version = cmp.Or(cfg.Version, "dev")
	cfg.Metrics = cmp.Or(cfg.Metrics, prometheus.NewRegistry())
	cfg.Readiness = cmp.Or(cfg.Readiness, new(readiness.Parts))
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	a := &API{cfg: cfg, keyHash: sha256.Sum256([]byte(cfg.AdminKey)), room: semaphore.NewWeighted(responseRoom)}
	a.keyedRequests = semaphore.NewWeighted(int64(max(cfg.Operations.MaxConnections()/4, 1)))
	a.guesses = web.NewGuesses(cfg.Logger, cfg.Now)
	cfg.Readiness.Add("api", a.ready)
	a.metrics = newMetrics(cfg.Metrics)
	a.plain = newGroup(a, "plain", cfg.Operations.AppendGroup)
	a.keyed = newGroup(a, "keyed", cfg.Operations.AppendGroup)
	if err := a.route(); err != nil {
		return nil, err
	}
	return a, nil
}

// Run commits appended events until ctx ends, then those that are left. End it
// after the HTTP server has shut down.
func (a *API) Run(ctx context.Context) error {
	var g errgroup.Group
	g.Go(func() error { return a.plain.Run(ctx) })
	g.Go(func() error { return a.keyed.Run(ctx) })
	for _, p := range a.cfg.Products {
		g.Go(func() error { return p.Run(ctx) })
	}
	g.Go(func() error { return a.forgetRequests(ctx) })
	if err := g.Wait(); err != nil {
		return fmt.Errorf("commit events: %w", err)
	}
	return nil
}

// actor is the actor of a request.
func actor(context.Context) account.Actor { return account.Operator() }

// ServeHTTP serves a request, and wakes the relay after one that may have
// appended to the log.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.router.ServeHTTP(w, r)
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions:
	default:
		a.cfg.Operations.Wake() //nolint:contextcheck // it outlives the request
	}
}

// Routes returns the method and path of every route, for example "GET
// /events/{id}".
func (a *API) Routes() ([]string, error) {
	var routes []string
	err := chi.Walk(a.router, func(method, route string, _ http.Handler, _ ...func(http.Handler) http.Handler) error {
		routes = append(routes, method+" "+route)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("walk routes: %w", err)
	}
	return routes, nil
}

func (a *API) route() error {
	r := chi.NewRouter()
	a.router = r
	// HEAD works wherever GET does.
	r.Use(a.observe, a.guard, middleware.GetHead)
	r.NotFound(func(w http.ResponseWriter, req *http.Request) {
		problem(http.StatusNotFound, "No route matches "+shorten(req.URL.Path)+"; /docs lists all routes.").write(w)
	})
	r.MethodNotAllowed(a.methodNotAllowed)

	a.routeHealth(r)
	a.routeHot(r)
	a.huma = newHuma(r.With(a.spooled, a.check, a.idempotent), a.cfg.Version)
	a.routeSubscriptions()
	a.routeEvents()
	a.routeReplays()
	a.routeDeadLetters()
	for _, p := range a.cfg.Products {
		p.Mount(&Host{a})
	}
	return a.finishDocument()
}

// methodNotAllowed sets the Allow header, which chi leaves out of a custom
// response.
func (a *API) methodNotAllowed(w http.ResponseWriter, r *http.Request) {
	path := r.URL.Path
	if r.URL.RawPath != "" {
		path = r.URL.RawPath
	}
	p := problem(http.StatusMethodNotAllowed, r.Method+" is not allowed here.")
	var allowed []string
	for _, method := range []string{"GET", "POST", "PUT", "PATCH", "DELETE"} {
		if !a.router.Match(chi.NewRouteContext(), method, path) {
			continue
		}
		allowed = append(allowed, method)
		if method == http.MethodGet {
			allowed = append(allowed, http.MethodHead)
		}
	}
	p.with("Allow", strings.Join(allowed, ", ")).write(w)
}

func shorten(s string) string {
	if len(s) > 100 {
		return s[:100] + "..."
	}
	return s
}
