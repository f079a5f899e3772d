package faults

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"posthorn/events/webhook"
	"posthorn/services/lab/site"
)

// Arrival is a line of the sink's file: one request, once its response is
// decided. Status is 0 if the response was deliberately invalid.
type Arrival struct {
	Subscriber string    `json:"subscriber"`
	Path       string    `json:"path,omitempty"` // the URL's path after the subscriber
	ID         string    `json:"id"`             // of the header
	Body       string    `json:"body"`           // the id in the body
	Type       string    `json:"type"`
	SHA256     string    `json:"sha256"` // of the data
	Signed     bool      `json:"signed"`
	Newest     bool      `json:"newest"` // signed with the newest trusted secret
	Status     int       `json:"status"`
	At         time.Time `json:"at"`
	Answered   time.Time `json:"answered"`
}

// Mode is how a subscriber behaves.
type Mode string

// The behaviours of the sink's subscribers.
const (
	Well       Mode = "well"
	Slow       Mode = "slow"       // 2xx after a second and a half
	Hang       Mode = "hang"       // never
	Slowloris  Mode = "slowloris"  // one byte of the response per second
	ResetAfter Mode = "reset"      // resets the connection after reading the body
	Failing    Mode = "500"        //
	Throttling Mode = "429"        // with Retry-After: 2
	Redirect   Mode = "302"        //
	Gone       Mode = "410"        //
	Flapping   Mode = "flapping"   // a random half of the responses are 503
	Flooding   Mode = "flooding"   // 2xx with an endless body
	HeaderBomb Mode = "headerbomb" // a megabyte of headers
	GzipBomb   Mode = "gzipbomb"   // 2xx with a small body that unpacks to 256 MB
)

// Sink is an HTTP server with any number of subscribers, one for each path.
type Sink struct {
	journal  *journal
	server   *http.Server
	listener net.Listener
	served   chan struct{}
	closing  context.CancelFunc
	ctx      context.Context // ends hanging responses

	mu          sync.Mutex
	subscribers map[string]*subscriber
	coin        *rand.Rand
	bomb        func() ([]byte, error)
	arrivals    atomic.Int64
	broken      atomic.Pointer[error] // why the file is incomplete
}

type subscriber struct {
	mode    Mode
	secrets []webhook.Secret // the newest first
	ok      map[string]struct{}
}

// NewSink starts a sink that writes to the file. The seed decides the random
// choices of its subscribers.
func NewSink(ctx context.Context, path string, seed uint64) (*Sink, error) {
	j, err := newJournal(path)
	if err != nil {
		return nil, err
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, errors.Join(fmt.Errorf("listen: %w", err), j.close())
	}
	s := &Sink{journal: j, listener: listener, served: make(chan struct{}), subscribers: map[string]*subscriber{}}
	s.coin = rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // reproducible
	s.bomb = sync.OnceValues(bomb)
	s.ctx, s.closing = context.WithCancel(context.WithoutCancel(ctx))
	s.server = &http.Server{Handler: http.HandlerFunc(s.serve), ReadHeaderTimeout: 10 * time.Second}
	go func() {
		defer close(s.served)
		_ = s.server.Serve(listener) // ends with Close
	}()
	return s, nil
}

// bomb is 256 MB of zeros, compressed.
func bomb() ([]byte, error) {
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	zeros := make([]byte, 1<<20)
	for range 256 {
		if _, err := w.Write(zeros); err != nil {
			return nil, fmt.Errorf("pack: %w", err)
		}
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("pack: %w", err)
	}
	return packed.Bytes(), nil
}

// Close ends the sink, including hanging requests.
func (s *Sink) Close() error {
	s.closing()
	err := s.server.Close()
	<-s.served
	err = errors.Join(err, s.journal.close())
	if broken := s.broken.Load(); broken != nil {
		err = errors.Join(err, *broken)
	}
	return err
}

// URL is the address of a subscriber.
func (s *Sink) URL(name string) string { return "http://" + s.listener.Addr().String() + "/" + name }

// Behave sets how a subscriber answers from now on.
func (s *Sink) Behave(name string, mode Mode) {
	if mode == GzipBomb {
		_, _ = s.bomb() // compressing it takes longer than a subscriber may
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.subscriber(name).mode = mode
}

// Trust adds a secret that signs a subscriber's deliveries to those that the
// sink trusts.
func (s *Sink) Trust(name, secret string) error {
	parsed, err := webhook.ParseSecret(secret)
	if err != nil {
		return fmt.Errorf("read secret: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	sub := s.subscriber(name)
	sub.secrets = append([]webhook.Secret{parsed}, sub.secrets...)
	return nil
}

// Taken returns how many different events a subscriber has answered with 2xx.
func (s *Sink) Taken(name string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.subscriber(name).ok)
}

func (s *Sink) subscriber(name string) *subscriber {
	sub, ok := s.subscribers[name]
	if !ok {
		sub = &subscriber{mode: Well, ok: map[string]struct{}{}}
		s.subscribers[name] = sub
	}
	return sub
}

func (s *Sink) serve(w http.ResponseWriter, r *http.Request) {
	at := time.Now()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the sender died while sending: nothing has arrived
	}
	name, path, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	s.mu.Lock()
	sub := s.subscriber(name)
	mode, secrets, tails := sub.mode, sub.secrets, s.coin.IntN(2) == 0
	s.mu.Unlock()

	a := Arrival{Subscriber: name, Path: path, ID: r.Header.Get("Webhook-Id"), At: at}
	var event struct {
		ID   string          `json:"id"`
		Type string          `json:"type"`
		Data json.RawMessage `json:"data"`
	}
	if json.Unmarshal(body, &event) == nil { // anything but an event stays empty, and is unexpected
		sum := sha256.Sum256(event.Data)
		a.Body, a.Type, a.SHA256 = event.ID, event.Type, hex.EncodeToString(sum[:])
	}
	for i, secret := range secrets {
		if webhook.Verify(r.Header, body, 5*time.Minute, secret) == nil {
			a.Signed = true
			a.Newest = a.Newest || i == 0
		}
	}
	s.arrivals.Add(1)

	status := http.StatusOK
	switch mode {
	case Well, Flooding, HeaderBomb, GzipBomb:
	case Slow:
		site.Pause(s.ctx, 1500*time.Millisecond) //nolint:contextcheck // until the sink ends, even if the client is gone
	case Hang, Slowloris, ResetAfter:
		status = 0
	case Failing:
		status = http.StatusInternalServerError
	case Throttling:
		status = http.StatusTooManyRequests
	case Redirect:
		status = http.StatusFound
	case Gone:
		status = http.StatusGone
	case Flapping:
		if tails {
			status = http.StatusServiceUnavailable
		}
	}
	if mode == HeaderBomb {
		status = 0
	}
	a.Status, a.Answered = status, time.Now()
	// Write it before responding, so that no success is unknown.
	if err := s.journal.write(a); err != nil {
		s.broken.Store(&err)
		status = http.StatusInternalServerError
	}
	if status/100 == 2 {
		s.mu.Lock()
		s.subscriber(name).ok[a.ID] = struct{}{}
		s.mu.Unlock()
	}
	s.answer(w, r, mode, status)
}

// answer writes the response.
func (s *Sink) answer(w http.ResponseWriter, r *http.Request, mode Mode, status int) {
	switch mode {
	case Hang:
		s.hang(r)
	case ResetAfter:
		if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
			if tcp, ok := conn.(*net.TCPConn); ok {
				_ = tcp.SetLinger(0) // a reset, not an orderly close
			}
			_ = conn.Close()
		}
	case Slowloris:
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer func() { _ = conn.Close() }()
		for _, b := range []byte("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + strings.Repeat("z", 1000)) {
			if _, err := conn.Write([]byte{b}); err != nil || s.ctx.Err() != nil {
				return
			}
			site.Pause(s.ctx, time.Second)
		}
	case HeaderBomb:
		for i := range 64 {
			w.Header().Set("X-Bomb-"+strconv.Itoa(i), strings.Repeat("b", 16<<10))
		}
		w.WriteHeader(http.StatusOK)
	case Flooding:
		w.WriteHeader(status)
		chunk := make([]byte, 64<<10)
		for range 160 { // 10 MiB, which the sender need not read
			if _, err := w.Write(chunk); err != nil {
				return
			}
		}
	case GzipBomb:
		packed, err := s.bomb()
		if err != nil {
			s.broken.Store(&err)
		}
		w.Header().Set("Content-Encoding", "gzip")
		w.WriteHeader(status)
		_, _ = w.Write(packed) // the sender need not read it
	case Well, Slow, Failing, Throttling, Redirect, Flapping, Gone:
		switch status {
		case http.StatusTooManyRequests:
			w.Header().Set("Retry-After", "2")
		case http.StatusFound:
			w.Header().Set("Location", s.URL("redirected"))
		}
		w.WriteHeader(status)
	}
}

func (s *Sink) hang(r *http.Request) {
	select {
	case <-r.Context().Done():
	case <-s.ctx.Done():
	}
}
