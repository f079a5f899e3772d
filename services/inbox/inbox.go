// Package inbox is a stand-in for an external system: a server that accepts any
// webhook at any path, keeps it, and shows it.
//
// A path is a bin, created by the first request to it. A bin answers 200, or as
// configured: with another status, a delay, a hang, or a number of failures
// before the first success; it checks signatures if it has the secret.
// Parameters of the hook's URL configure it (?status=500&failures=2&delay=2s&
// hang=true&retryAfter=30&secret=whsec_...), or the JSON API below
// /_inbox/bins/.
//
// In a browser, a bin is a page that follows new requests; for other clients it
// is JSON. A GET shows the bin, and is recorded only if it carries a webhook-id
// or ?record=1; every other method is recorded.
//
// It promises to use a bounded amount of memory, by dropping the oldest
// requests, and to show everything it received as text. It keeps nothing on
// disk and needs no password: it belongs on a developer's machine.
package inbox

import (
	"context"
	"log/slog"
	"net/http"
	"strings"
	"time"
	"unicode/utf8"

	"posthorn/events/webhook"
)

// Config of an Inbox. The zero value is ready to use.
type Config struct {
	// Logger gets a line for each recorded request, without its content.
	// The default discards it.
	Logger *slog.Logger
	// Now is the clock. Default time.Now.
	Now func() time.Time
	// MaxHang limits how long a hanging request is held. Default 5 min.
	MaxHang time.Duration
}

const (
	maxBinName = 200
	// A delay longer than senders wait is a hang.
	maxDelay = time.Minute
	// maxRead is how much of a body is read, so that a signature can be
	// checked; maxKeptBody is how much of it is kept.
	maxRead     = 2 << 20
	maxKeptBody = 256 << 10
)

// Inbox is an http.Handler.
type Inbox struct {
	logger  *slog.Logger
	now     func() time.Time
	maxHang time.Duration
	store   *store
	page    *page

	closing context.Context //nolint:containedctx // ends hanging requests and streams when Close is called
	close   context.CancelFunc
}

// New returns an empty Inbox.
func New(config Config) *Inbox {
	i := &Inbox{
		logger:  config.Logger,
		now:     config.Now,
		maxHang: config.MaxHang,
		store:   newStore(),
		page:    newPage(),
	}
	if i.logger == nil {
		i.logger = slog.New(slog.DiscardHandler)
	}
	if i.now == nil {
		i.now = time.Now
	}
	if i.maxHang == 0 {
		i.maxHang = 5 * time.Minute
	}
	i.closing, i.close = context.WithCancel(context.Background())
	return i
}

// Close ends every request that hangs, is delayed or streams changes. Pass it
// to http.Server's RegisterOnShutdown, as Shutdown waits for them.
func (i *Inbox) Close() { i.close() }

// ServeHTTP routes by hand: http.ServeMux would answer a POST to "/a//b" with a
// redirect, and here every path is a hook.
func (i *Inbox) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	protect(w.Header())
	path := r.URL.EscapedPath()
	switch {
	case path == "/":
		i.serveIndex(w, r)
	case path == "/healthz":
		writeText(w, http.StatusOK, "ok\n")
	case path == "/favicon.ico":
		i.page.serveAsset(w, r, "icon.svg")
	case strings.HasPrefix(path, assetPath):
		i.page.serveAsset(w, r, strings.TrimPrefix(path, assetPath))
	case path == "/_inbox" || strings.HasPrefix(path, "/_inbox/"):
		i.serveControl(w, r, strings.TrimPrefix(path, "/_inbox"))
	default:
		i.serveBin(w, r)
	}
}

func (i *Inbox) serveIndex(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		writeProblem(w, http.StatusMethodNotAllowed, "a hook needs a path, such as /my-album")
	case wantsHTML(r):
		i.page.serveIndex(w)
	default:
		writeJSON(w, i.store.list())
	}
}

func (i *Inbox) serveBin(w http.ResponseWriter, r *http.Request) {
	name, ok := binName(r.URL.Path)
	if !ok {
		writeProblem(w, http.StatusNotFound, "a bin's name is a path of at most 200 bytes of UTF-8")
		return
	}
	query := r.URL.Query()
	viewing := r.Method == http.MethodGet || r.Method == http.MethodHead
	if viewing && r.Header.Get(webhook.HeaderID) == "" && query.Get("record") != "1" {
		if wantsHTML(r) {
			i.page.serveBin(w, name)
			return
		}
		i.writeView(w, r, name)
		return
	}
	i.record(w, r, name, query)
}

// binName turns a path into the bin's name: "/my-album/" is "my-album".
func binName(path string) (string, bool) {
	name := strings.Trim(path, "/")
	ok := name != "" && len(name) <= maxBinName && utf8.ValidString(name) &&
		!strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f })
	return name, ok
}

// wantsHTML reports whether the client is a browser that opens a page.
func wantsHTML(r *http.Request) bool {
	return strings.Contains(r.Header.Get("Accept"), "text/html")
}

// protect sets the headers of every response: the content comes from third
// parties, and no browser may treat it as a page or a script.
func protect(h http.Header) {
	h.Set("Content-Security-Policy",
		"default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "no-referrer") // a hook's URL may hold its secret
	h.Set("Cache-Control", "no-store")
}
