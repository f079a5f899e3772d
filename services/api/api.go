// Package api is Posthorn's HTTP API: it takes events in, manages
// subscriptions, and shows what became of both.
//
// It promises that a 2xx for an event means that the event is committed, that
// nothing but Postgres is needed for that, and that whatever is sent to it is
// answered: bad input with a problem (RFC 9457) that names the field and with
// nothing stored, Postgres being away with 503 and Retry-After. Where a commit
// may or may not have happened, the answer is a 503 that says so; sending the
// same request with the same id again is then safe.
//
// Other requests that change something are done once for an Idempotency-Key,
// and answers take a bounded amount of memory, whether they are read or not.
//
// Requests that only append, which are nearly all, share commits: what arrives while one is under
// way goes into the next. They are plain handlers, since huma costs them more than it gives them;
// every other route is declared through huma, and all of them are in one OpenAPI document.
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
	// Operations need a keyring, and two connections at least.
	Operations *operate.Operations
	// Products are mounted beside the API's own routes.
	Products []Product
	// Addr is the address that the API will be served on. Validate refuses one
	// that others can reach without an AdminKey, unless Open allows it.
	Addr     string
	AdminKey string
	Open     bool
	// Hosts are the names that are answered where no key is needed, beside IP
	// addresses and localhost.
	Hosts   web.Hosts
	Logger  *slog.Logger
	Version string
	// Metrics is where the API's metrics are registered and what /metrics
	// shows; nil makes a registry of its own.
	Metrics *prometheus.Registry
	// Readiness is what /readyz answers with; the API adds itself. nil makes one
	// that has the API alone.
	Readiness *readiness.Parts
	// CommitTimeout is how long a request waits for its commit. Default 10 s.
	CommitTimeout time.Duration
	// GroupWait holds an event back for others to share its commit, on top of
	// those that arrive while the commit before is under way. Default 0.
	GroupWait time.Duration
	// WriteTimeout is how long a client may take to read the next 64 KiB of an
	// answer before it is cut off. Default 10 s.
	WriteTimeout time.Duration
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// Validate reports the first thing that an API cannot start with.
func (c Config) Validate() error {
	switch {
	case c.Operations == nil:
		return errors.New("api: Operations are missing")
	case c.AdminKey != "" && web.CheckKey(c.AdminKey) != nil:
		return fmt.Errorf("api: POSTHORN_ADMIN_KEY: %w", web.CheckKey(c.AdminKey))
	case c.AdminKey == "" && !c.Open && c.Addr != "" && !loopback(c.Addr):
		return fmt.Errorf("api: refusing to serve without a key on %s, which others can reach: "+
			"set POSTHORN_ADMIN_KEY, or POSTHORN_OPEN=true if whoever reaches it may do everything", c.Addr)
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

// API is an http.Handler. Requests that append are answered only while Run
// runs.
type API struct {
	cfg      Config
	router   *chi.Mux
	huma     huma.API
	metrics  *metrics
	keyHash  [sha256.Size]byte
	guesses  *web.Guesses
	document []byte

	// Events with an id that a client chose wait for whoever else is using
	// that id, so they do not share commits with the rest.
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

// Run commits what requests append until ctx ends, then what is left. End it
// after the HTTP server has been shut down.
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

// actor is who a request acts for.
func actor(context.Context) account.Actor { return account.Operator() }

func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) { a.router.ServeHTTP(w, r) }

// Routes are the method and path of every route, for example
// "GET /events/{id}".
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
	// HEAD is possible wherever GET is.
	r.Use(a.observe, a.guard, middleware.GetHead)
	r.NotFound(func(w http.ResponseWriter, req *http.Request) {
		problem(http.StatusNotFound, "There is nothing at "+shorten(req.URL.Path)+"; /docs lists what there is.").write(w)
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

// methodNotAllowed says which methods there are; chi leaves that out as soon
// as the answer is not its own.
func (a *API) methodNotAllowed(w http.ResponseWriter, r *http.Request) {
	path := r.URL.Path
	if r.URL.RawPath != "" {
		path = r.URL.RawPath
	}
	p := problem(http.StatusMethodNotAllowed, r.Method+" is not possible here.")
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
