package web

import (
	"context"
	"log/slog"
	"net/http"
	"net/netip"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/time/rate"
)

const (
	// guessBurst wrong keys of a network are answered at once, and then one per
	// guessEvery.
	guessBurst = 10
	guessEvery = 2 * time.Second
	// guessNetworks are remembered; beyond that, those idle the longest are
	// forgotten, and guessesOfAll per second limits all networks together.
	guessNetworks = 4096
	guessesOfAll  = 50
	// guessLogEvery is how often wrong keys are logged while they continue.
	guessLogEvery = time.Minute
)

// Guesses throttles clients that try wrong keys. The length of a key keeps it
// from being guessed; this makes the attempts cheap and visible.
type Guesses struct {
	logger   *slog.Logger
	now      func() time.Time
	networks *lru.Cache[netip.Prefix, *rate.Limiter]
	all      *rate.Limiter

	mu     sync.Mutex
	logged time.Time
	unsaid int
}

// NewGuesses logs to logger and reads the time from now.
func NewGuesses(logger *slog.Logger, now func() time.Time) *Guesses {
	networks, err := lru.New[netip.Prefix, *rate.Limiter](guessNetworks)
	if err != nil { // the size is not positive
		panic(err)
	}
	return &Guesses{logger: logger, now: now, networks: networks, all: rate.NewLimiter(guessesOfAll, guessesOfAll)}
}

// Wrong records a wrong key and returns how long its sender has to wait before
// the next: 0 unless there were too many.
func (g *Guesses) Wrong(r *http.Request) time.Duration {
	now, from := g.now(), network(r)
	g.log(r.Context(), now, from)
	fresh := rate.NewLimiter(rate.Every(guessEvery), guessBurst)
	limiter, known, _ := g.networks.PeekOrAdd(from, fresh)
	if !known {
		limiter = fresh
	}
	g.networks.Get(from) // mark it as recently used
	if !limiter.AllowN(now, 1) || !g.all.AllowN(now, 1) {
		return guessEvery
	}
	return 0
}

func (g *Guesses) log(ctx context.Context, now time.Time, from netip.Prefix) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.unsaid++
	if !g.logged.IsZero() && now.Sub(g.logged) < guessLogEvery {
		return
	}
	g.logger.WarnContext(ctx, "requests with a wrong key", slog.Int("count", g.unsaid), slog.String("last_from", from.String()))
	g.logged, g.unsaid = now, 0
}

// network returns the client's network: its address, or the /64 of an IPv6
// address, which is what providers assign to a customer.
func network(r *http.Request) netip.Prefix {
	addr, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Prefix{}
	}
	ip, bits := addr.Addr().Unmap().WithZone(""), 32
	if ip.Is6() {
		bits = 64
	}
	prefix, err := ip.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return prefix
}
