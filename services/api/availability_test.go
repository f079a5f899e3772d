package api_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"posthorn/migrations/pgtest"
	"posthorn/services/api"
)

// proxy sits between the API and Postgres and can cut the connection.
type proxy struct {
	t        *testing.T
	listener net.Listener
	target   string

	mu    sync.Mutex
	down  bool
	conns map[net.Conn]struct{}
	// lose: drop the response of Postgres to a statement with this text, and
	// cut the connection.
	lose string
}

func newProxy(t *testing.T, target string) *proxy {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{t: t, listener: l, target: target, conns: map[net.Conn]struct{}{}}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() { p.serve(client) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		p.set(true)
		running.Wait()
	})
	return p
}

func (p *proxy) serve(client net.Conn) {
	server, err := (&net.Dialer{}).DialContext(context.Background(), "tcp", p.target)
	if err != nil {
		_ = client.Close()
		return
	}
	p.mu.Lock()
	down := p.down
	p.conns[client], p.conns[server] = struct{}{}, struct{}{}
	p.mu.Unlock()
	cut := func() { _, _ = client.Close(), server.Close() }
	if down {
		cut()
		return
	}
	var losing bool
	var mu sync.Mutex
	var both sync.WaitGroup
	both.Go(func() {
		defer cut()
		p.copy(server, client, func(b []byte) bool {
			mu.Lock()
			defer mu.Unlock()
			p.mu.Lock()
			defer p.mu.Unlock()
			losing = p.lose != "" && bytes.Contains(b, []byte(p.lose))
			return true
		})
	})
	both.Go(func() {
		defer cut()
		p.copy(client, server, func([]byte) bool {
			mu.Lock()
			defer mu.Unlock()
			return !losing
		})
	})
	both.Wait()
}

func (p *proxy) copy(dst io.Writer, src io.Reader, pass func([]byte) bool) {
	b := make([]byte, 32<<10)
	for {
		n, err := src.Read(b)
		if n > 0 && pass(b[:n]) {
			if _, err := dst.Write(b[:n]); err != nil {
				return
			}
		} else if n > 0 {
			return
		}
		if err != nil {
			return
		}
	}
}

func (p *proxy) set(down bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down = down
	if down {
		for c := range p.conns {
			_ = c.Close()
		}
		clear(p.conns)
	}
}

// throughProxy is an API whose database is behind the proxy.
func throughProxy(t *testing.T) (*server, *proxy) {
	t.Helper()
	u, err := url.Parse(pgtest.URL(t))
	if err != nil {
		t.Fatal(err)
	}
	p := newProxy(t, u.Host)
	u.Host = p.listener.Addr().String()
	s := newServerOn(t, u.String(), func(c *api.Config) { c.CommitTimeout = 5 * time.Second })
	return s, p
}

func TestWithoutPostgresTheAPISays503AndComesBack(t *testing.T) {
	t.Parallel()
	s, p := throughProxy(t)
	sub := s.subscribe(hook)
	s.do("GET", "/like/1", "").want(202)
	for round := range 2 {
		p.set(true)
		for _, c := range []struct{ method, path, body string }{
			{"GET", "/like/1", ""},
			{"POST", "/like/1", `{"userId":"u"}`},
			{"DELETE", "/like/1?userId=u", ""},
			{"GET", "/photos/1", ""},
			{"POST", "/events", `{"type":"A"}`},
			{"POST", "/events", `{"type":"A","id":"x"}`},
			{"POST", "/events", `[{"type":"A"}]`},
			{"GET", "/events", ""},
			{"GET", "/events/x", ""},
			{"GET", "/events/x/deliveries", ""},
			{"GET", "/events?since=2026-01-01T00:00:00Z", ""},
			{"POST", "/subscription", hook},
			{"GET", "/subscription", ""},
			{"GET", "/subscription/" + sub.ID, ""},
			{"PUT", "/subscription/" + sub.ID, hook},
			{"PATCH", "/subscription/" + sub.ID, `{}`},
			{"DELETE", "/subscription/" + sub.ID, ""},
			{"POST", "/subscription/" + sub.ID + "/pause", ""},
			{"POST", "/subscription/" + sub.ID + "/test", ""},
			{"POST", "/subscription/" + sub.ID + "/rotate-secret", ""},
			{"GET", "/subscription/" + sub.ID + "/attempts", ""},
		} {
			r := s.do(c.method, c.path, c.body)
			if r.Status != 503 || r.Header.Get("Retry-After") == "" || r.Header.Get("Content-Type") != "application/problem+json" {
				t.Errorf("round %d: %s %s: %d %s", round, c.method, c.path, r.Status, r.Body)
			}
		}
		if r := s.do("GET", "/readyz", ""); r.Status != 503 || !strings.Contains(string(r.Body), "database") {
			t.Errorf("readyz: %d %s", r.Status, r.Body)
		}
		s.do("GET", "/healthz", "").want(200)
		// Invalid input is still refused as such.
		s.do("POST", "/events", `{"type":""}`).want(422)
		p.set(false)
		// Readiness allows two seconds for a new connection. A busy machine may need longer, and
		// then readiness rightly fails, so the test asks again.
		waitUntil(t, func() bool { return s.do("GET", "/readyz", "").Status == 200 })
		s.do("POST", "/events", `{"type":"A"}`).want(202)
		s.do("GET", "/subscription/"+sub.ID, "").want(200)
	}
	if n := s.events(); n != 3 {
		t.Errorf("%d events, want the 3 that were answered with 2xx", n)
	}
}

func TestALostResponseToACommitIs503AndSafeToRepeat(t *testing.T) {
	t.Parallel()
	s, p := throughProxy(t)
	lose := func(answer string) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.lose = answer
	}
	for i, c := range []struct{ method, path, body, commit string }{
		{"POST", "/events", `{"type":"A","id":"once"}`, "append_events"}, // a transaction of one statement
		{"POST", "/like/1", `{"userId":"u"}`, "COMMIT"},
		{"POST", "/events", `[{"type":"A","id":"in-batch"}]`, "COMMIT"},
	} {
		lose(c.commit)
		r := s.do(c.method, c.path, c.body)
		if r.Status != 503 || r.Header.Get("Retry-After") == "" || !strings.Contains(string(r.Body), "may have been accepted") {
			t.Errorf("%s: %d %s", c.path, r.Status, r.Body)
		}
		lose("")
		if n := s.events(); n != int64(i+1) {
			t.Fatalf("%d events after the lost response, want %d", n, i+1)
		}
		s.do(c.method, c.path, c.body).want(202)
		if n := s.events(); n != int64(i+1) {
			t.Errorf("%d events after the repeated request, want %d", n, i+1)
		}
	}
}

func TestALostResponseToAnAppendDoesNotAppendTwice(t *testing.T) {
	t.Parallel()
	s, p := throughProxy(t)
	s.do("POST", "/events", `{"type":"A"}`).want(202) // the pool has a connection, and would retry on another
	p.mu.Lock()
	p.lose = "append_events"
	p.mu.Unlock()
	// The id is generated, so only the API itself prevents a duplicate.
	s.do("POST", "/events", `{"type":"A"}`).want(503)
	p.mu.Lock()
	p.lose = ""
	p.mu.Unlock()
	if n := s.events(); n != 2 {
		t.Errorf("%d events, want 2", n)
	}
}

func TestNoEventWithA2xxIsLostWhenTheConnectionIsCut(t *testing.T) {
	t.Parallel()
	s, p := throughProxy(t)
	var (
		mu       sync.Mutex
		accepted []string
		wg       sync.WaitGroup
	)
	for client := range 8 {
		wg.Go(func() {
			for i := range 40 {
				id := fmt.Sprintf("e-%d-%d", client, i)
				r := s.do("POST", "/events", fmt.Sprintf(`{"type":"A","id":%q}`, id))
				switch r.Status {
				case http.StatusAccepted:
					mu.Lock()
					accepted = append(accepted, id)
					mu.Unlock()
				case http.StatusServiceUnavailable:
				default:
					t.Errorf("%d %s", r.Status, r.Body)
				}
				if client == 0 && i%10 == 5 {
					p.set(true)
					p.set(false)
				}
			}
		})
	}
	wg.Wait()
	for _, id := range accepted {
		if n := s.count(`SELECT count(*) FROM posthorn.outbox WHERE id = $1`, id); n != 1 {
			t.Errorf("event %s got a 2xx and is in the log %d times", id, n)
		}
	}
	if len(accepted) == 0 {
		t.Error("nothing was accepted")
	}
}

func TestAClientThatDisconnectsLosesNothingForOthers(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	ctx, cancel := context.WithCancel(t.Context())
	tx, err := s.db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.ExecContext(t.Context(), `LOCK TABLE posthorn.outbox IN EXCLUSIVE MODE`); err != nil {
		t.Fatal(err)
	}
	gone := make(chan error, 1)
	go func() {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.http.URL+"/like/gone", nil)
		if err == nil {
			var res *http.Response
			if res, err = s.http.Client().Do(req); err == nil {
				_ = res.Body.Close()
			}
		}
		gone <- err
	}()
	waitUntil(t, func() bool {
		var waiting int64
		err := s.db.QueryRowContext(t.Context(), `SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'posthorn.outbox'::regclass`).Scan(&waiting)
		return err == nil && waiting > 0
	})
	cancel()
	if err := <-gone; err == nil {
		t.Error("the client that disconnected got a response")
	}
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	s.do("POST", "/like/stayed", "").want(202)
	if got := s.likes("gone"); got != 1 {
		t.Errorf("%d likes of the client that disconnected", got)
	}
}

func TestRunDrainsAcceptedRequests(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.do("POST", "/events", `{"type":"A"}`).want(202)
	s.http.Close() // and the cleanup sees Run return
}
