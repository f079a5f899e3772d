package sender

import (
	"context"
	"crypto/tls"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// keeper is a server that answers the first request of each connection and then
// passes the connection to after.
type keeper struct {
	url                   string
	requests, connections atomic.Int32
}

func newKeeper(t *testing.T, after func(*keeper, net.Conn)) *keeper {
	t.Helper()
	k := &keeper{}
	k.url = rawServer(t, func(conn net.Conn) {
		k.connections.Add(1)
		k.requests.Add(1)
		if _, err := io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"); err != nil {
			return
		}
		after(k, conn)
	})
	return k
}

// second waits for the next request on the connection.
func (k *keeper) second(conn net.Conn) {
	if n, err := conn.Read(make([]byte, 64<<10)); n > 0 && err == nil {
		k.requests.Add(1)
	}
}

func TestSendConnectsAgainWhereAKeptConnectionEnds(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(net.Conn){
		"closed": func(net.Conn) {},
		"reset": func(conn net.Conn) {
			if tcp, ok := conn.(*net.TCPConn); ok {
				_ = tcp.SetLinger(0)
			}
		},
	} {
		for _, size := range []int{0, 20, 4 << 20} {
			t.Run(name+" with "+strconv.Itoa(size)+" bytes", func(t *testing.T) {
				t.Parallel()
				k := newKeeper(t, func(k *keeper, conn net.Conn) {
					if k.connections.Load() > 1 {
						untilClosed(conn)
						return
					}
					k.second(conn)
					end(conn)
				})
				s := newSender(t, Config{})
				r := newRequestTo(k.url)
				r.Body = []byte(strings.Repeat(" ", size))
				wantClass(t, s.Send(t.Context(), newRequestTo(k.url)), ClassOK, "")
				got := s.Send(t.Context(), r)
				wantClass(t, got, ClassOK, "")
				if n := k.connections.Load(); n != 2 || !got.Reconnected {
					t.Errorf("%d connections, reconnected %v", n, got.Reconnected)
				}
			})
		}
	}
}

func TestSendConnectsAgainOverTLS(t *testing.T) {
	t.Parallel()
	cert, pool := certificate(t, time.Now().Add(24*time.Hour), "127.0.0.1")
	var requests atomic.Int32
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, _ *http.Request) {
		if requests.Add(1) == 2 {
			panic(http.ErrAbortHandler)
		}
	}))
	server.TLS = &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{cert}}
	server.Config.ErrorLog = log.New(t.Output(), "", 0)
	server.StartTLS()
	t.Cleanup(server.Close)
	s := newSender(t, Config{RootCAs: pool})
	wantClass(t, s.Send(t.Context(), newRequestTo(server.URL)), ClassOK, "")
	wantClass(t, s.Send(t.Context(), newRequestTo(server.URL)), ClassOK, "")
	if n := requests.Load(); n != 3 {
		t.Errorf("%d requests", n)
	}
}

// A receiver that closes idle connections without notice, as real ones do: some
// of the requests cross the close.
func TestSendSurvivesAReceiverThatClosesIdleConnections(t *testing.T) {
	t.Parallel()
	k := newKeeper(t, func(_ *keeper, conn net.Conn) {
		_ = conn.SetReadDeadline(time.Now().Add(3 * time.Millisecond))
		_, _ = conn.Read(make([]byte, 1))
	})
	s := newSender(t, Config{})
	tick := time.NewTicker(3 * time.Millisecond)
	defer tick.Stop()
	for range 200 {
		if got := s.Send(t.Context(), newRequestTo(k.url)); !got.OK() {
			t.Fatalf("%s: %s", got.Class, got.Error)
		}
		<-tick.C
	}
}

func TestSendConnectsAgainOnceAndOnlyWithoutAnAnswer(t *testing.T) {
	t.Parallel()
	t.Run("a new connection that ends is an answer", func(t *testing.T) {
		t.Parallel()
		var connections atomic.Int32
		url := rawServer(t, func(net.Conn) { connections.Add(1) })
		wantClass(t, newSender(t, Config{}).Send(t.Context(), newRequestTo(url)), ClassConnect, "closed")
		if n := connections.Load(); n != 1 {
			t.Errorf("%d connections", n)
		}
	})
	t.Run("once", func(t *testing.T) {
		t.Parallel()
		var requests atomic.Int32
		url := serve(t, func(http.ResponseWriter, *http.Request) {
			if requests.Add(1) > 1 {
				panic(http.ErrAbortHandler)
			}
		})
		s := newSender(t, Config{})
		wantClass(t, s.Send(t.Context(), newRequestTo(url)), ClassOK, "")
		wantClass(t, s.Send(t.Context(), newRequestTo(url)), ClassConnect, "closed")
		if n := requests.Load(); n != 3 {
			t.Errorf("%d requests for two attempts", n)
		}
	})
	t.Run("once, whatever else is kept open and the caller's headers say", func(t *testing.T) {
		t.Parallel()
		var requests atomic.Int32
		var failing atomic.Bool
		together := make(chan struct{})
		url := serve(t, func(http.ResponseWriter, *http.Request) {
			if failing.Load() {
				requests.Add(1)
				panic(http.ErrAbortHandler)
			}
			if requests.Add(1) == 3 {
				close(together)
			}
			<-together
		})
		s := newSender(t, Config{})
		done := make(chan Result, 3)
		for range 3 { // connections to keep
			go func() { done <- s.Send(t.Context(), newRequestTo(url)) }()
		}
		for range 3 {
			wantClass(t, <-done, ClassOK, "")
		}
		failing.Store(true)
		requests.Store(0)
		r := newRequestTo(url)
		r.Headers = http.Header{"X-Idempotency-Key": {"a"}} // net/http would repeat the request because of it
		wantClass(t, s.Send(t.Context(), r), ClassConnect, "closed")
		if n := requests.Load(); n != 2 {
			t.Errorf("%d requests for one attempt", n)
		}
	})
	for name, answer := range map[string]string{
		"a byte of a response": "H",
		"a response cut off":   "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nok",
		"something else":       "no HTTP\r\n\r\n",
		"an interim response":  "HTTP/1.1 103 Early Hints\r\n\r\n",
	} {
		t.Run("not after "+name, func(t *testing.T) {
			t.Parallel()
			k := newKeeper(t, func(k *keeper, conn net.Conn) {
				k.second(conn)
				_, _ = io.WriteString(conn, answer)
			})
			s := newSender(t, Config{})
			wantClass(t, s.Send(t.Context(), newRequestTo(k.url)), ClassOK, "")
			if got := s.Send(t.Context(), newRequestTo(k.url)); got.OK() || got.Reconnected {
				t.Errorf("class %s, reconnected %v", got.Class, got.Reconnected)
			}
			if n := k.requests.Load(); n != 2 {
				t.Errorf("%d requests for two attempts", n)
			}
		})
	}
}

func TestSendDoesNotConnectAgainOnceItsTimeIsOver(t *testing.T) {
	t.Parallel()
	arrived := make(chan struct{}, 2)
	k := newKeeper(t, func(k *keeper, conn net.Conn) { k.second(conn); arrived <- struct{}{}; untilClosed(conn) })
	s := newSender(t, Config{})
	wantClass(t, s.Send(t.Context(), newRequestTo(k.url)), ClassOK, "")
	r := newRequestTo(k.url)
	r.Timeout = 100 * time.Millisecond
	wantClass(t, s.Send(t.Context(), r), ClassTimeout, "within 100ms")
	<-arrived
	ctx, cancel := context.WithCancel(t.Context())
	wantClass(t, s.Send(ctx, newRequestTo(k.url)), ClassOK, "")
	go func() { <-arrived; cancel() }()
	wantClass(t, s.Send(ctx, newRequestTo(k.url)), ClassCancelled, "")
	if n := k.connections.Load(); n != 2 {
		t.Errorf("%d connections, want one for each two attempts", n)
	}
}
