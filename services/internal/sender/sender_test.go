package sender

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"posthorn/events/webhook"
)

// loopback must be allowed in tests, since the servers are there.
func loopback() []netip.Prefix {
	return []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
}

func newSender(t testing.TB, config Config) *Sender {
	t.Helper()
	if config.AllowNetworks == nil {
		config.AllowNetworks = loopback()
	}
	s := New(config)
	t.Cleanup(s.Close)
	return s
}

func newRequestTo(url string) Request {
	return Request{
		URL: url, ID: "evt_1", Body: []byte(`{"id":"evt_1"}`),
		Secrets: []webhook.Secret{webhook.NewSecret()}, Timeout: 10 * time.Second,
	}
}

func serve(t testing.TB, handler http.HandlerFunc) string {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return server.URL
}

// rawServer reads each request up to the end of its headers, passes the
// connection to handle, and closes it afterwards.
func rawServer(t testing.TB, handle func(net.Conn)) string {
	t.Helper()
	listener := listen(t, "127.0.0.1:0")
	var wg sync.WaitGroup
	t.Cleanup(wg.Wait)
	t.Cleanup(func() { _ = listener.Close() })
	wg.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer func() { _ = conn.Close() }()
				buf, n := make([]byte, 64<<10), 0
				for !bytes.Contains(buf[:n], []byte("\r\n\r\n")) {
					k, err := conn.Read(buf[n:])
					if err != nil {
						return
					}
					n += k
				}
				handle(conn)
			})
		}
	})
	return "http://" + listener.Addr().String()
}

func listen(t testing.TB, address string) net.Listener {
	t.Helper()
	var config net.ListenConfig
	listener, err := config.Listen(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	return listener
}

// untilClosed returns once the peer has closed the connection.
func untilClosed(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) }

func wantClass(t *testing.T, got Result, class Class, errorHas string) {
	t.Helper()
	if got.Class != class || !strings.Contains(got.Error, errorHas) {
		t.Errorf("class %q, error %q, status %d; want class %q, error with %q", got.Class, got.Error, got.Status, class, errorHas)
	}
	if got.OK() != (class == ClassOK) || (got.Error == "") != (class == ClassOK) {
		t.Errorf("OK %v with class %q and error %q", got.OK(), got.Class, got.Error)
	}
	if got.StartedAt.IsZero() || got.Duration <= 0 {
		t.Errorf("started %v, took %v", got.StartedAt, got.Duration)
	}
	for _, secret := range []string{"127.0.0", "10.", "tcp", "lookup"} {
		if strings.Contains(got.Error, secret) {
			t.Errorf("the error shows more than it should: %q", got.Error)
		}
	}
}

func TestSendPostsASignedRequest(t *testing.T) {
	t.Parallel()
	older, newer := webhook.NewSecret(), webhook.NewSecret()
	body := []byte(`{"id":"evt_1","data":{"n":1.0}}`)
	type seen struct {
		request *http.Request
		body    []byte
	}
	got := make(chan seen, 1)
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		got <- seen{r, b}
		w.Header().Set("X-Request-Id", "abc")
		w.WriteHeader(http.StatusAccepted)
		_, _ = io.WriteString(w, "thanks")
	})
	r := newRequestTo(url + "/hook?a=b")
	r.Body, r.Secrets = body, []webhook.Secret{newer, older}
	r.Headers = http.Header{"x-tenant": {"t1"}, "Authorization": {"Bearer very-secret"}}

	result := newSender(t, Config{UserAgent: "Test/2"}).Send(t.Context(), r)
	wantClass(t, result, ClassOK, "")
	request := <-got
	for _, secret := range r.Secrets {
		if err := webhook.Verify(request.request.Header, request.body, time.Minute, secret); err != nil {
			t.Errorf("the receiver cannot verify: %v", err)
		}
	}
	if !bytes.Equal(request.body, body) || request.request.Method != http.MethodPost || request.request.RequestURI != "/hook?a=b" {
		t.Errorf("got %s %s %q", request.request.Method, request.request.RequestURI, request.body)
	}
	for name, want := range map[string]string{
		"Content-Type": "application/json", "User-Agent": "Test/2", "Webhook-Id": "evt_1", "X-Tenant": "t1",
		"Authorization": "Bearer very-secret", "Accept-Encoding": "", "Content-Length": strconv.Itoa(len(body)),
	} {
		if v := request.request.Header.Get(name); v != want {
			t.Errorf("%s: %q, want %q", name, v, want)
		}
	}
	if result.Status != 202 || string(result.ResponseBody) != "thanks" || result.ResponseTruncated || result.ResponseHeaders["X-Request-Id"] != "abc" {
		t.Errorf("result %+v", result)
	}
	if kept := result.RequestHeaders; kept["Webhook-Signature"] != request.request.Header.Get("Webhook-Signature") ||
		kept["Authorization"] != "[redacted]" || kept["X-Tenant"] != "t1" {
		t.Errorf("kept %v", kept)
	}
}

func TestSendSignsForTheTimeGiven(t *testing.T) {
	t.Parallel()
	at := time.Unix(1_700_000_000, 0)
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.Header.Get(webhook.HeaderTimestamp))
	})
	r := newRequestTo(url)
	r.At = at
	if got := newSender(t, Config{}).Send(t.Context(), r); string(got.ResponseBody) != "1700000000" {
		t.Errorf("timestamp %q", got.ResponseBody)
	}
}

func TestSendDoesNotLetHeadersReplaceOurs(t *testing.T) {
	t.Parallel()
	got := make(chan *http.Request, 1)
	url := serve(t, func(_ http.ResponseWriter, r *http.Request) { got <- r })
	r := newRequestTo(url)
	r.Headers = http.Header{
		"webhook-id": {"evil"}, "Webhook-Signature": {"evil"}, "Host": {"evil"}, "Content-Length": {"1"},
		"Transfer-Encoding": {"chunked"}, "Connection": {"close"}, "Idempotency-Key": {"evil"},
		"Content-Type": {"application/cloudevents+json"}, "ce-id": {"evt_1"},
	}
	wantClass(t, newSender(t, Config{}).Send(t.Context(), r), ClassOK, "")
	seen := <-got
	if seen.Host == "evil" || seen.Close || seen.ContentLength != int64(len(r.Body)) {
		t.Errorf("host %q, close %v, length %d", seen.Host, seen.Close, seen.ContentLength)
	}
	for name, want := range map[string]string{
		"Webhook-Id": "evt_1", "Idempotency-Key": "", "Content-Type": "application/cloudevents+json", "Ce-Id": "evt_1",
	} {
		if v := seen.Header.Get(name); v != want {
			t.Errorf("%s: %q, want %q", name, v, want)
		}
	}
}

func TestSendRefusesWhatItCannotSend(t *testing.T) {
	t.Parallel()
	var calls atomic.Int32
	url := serve(t, func(http.ResponseWriter, *http.Request) { calls.Add(1) })
	s := newSender(t, Config{})
	for name, change := range map[string]func(*Request){
		"no secret":             func(r *Request) { r.Secrets = nil },
		"a zero secret":         func(r *Request) { r.Secrets = []webhook.Secret{{}} },
		"an id with a dot":      func(r *Request) { r.ID = "evt.1" },
		"no id":                 func(r *Request) { r.ID = "" },
		"a URL with a user":     func(r *Request) { r.URL = strings.Replace(url, "http://", "http://a@", 1) },
		"a URL of another kind": func(r *Request) { r.URL = "file:///etc/passwd" },
		"a header with CRLF":    func(r *Request) { r.Headers = http.Header{"X-A": {"b\r\nX-Evil: 1"}} },
	} {
		r := newRequestTo(url)
		change(&r)
		if got := s.Send(t.Context(), r); got.Class != ClassProtocol || got.Error == "" || got.Status != 0 {
			t.Errorf("%s: %+v", name, got)
		}
	}
	if n := calls.Load(); n != 0 {
		t.Errorf("%d requests were sent", n)
	}
}

func TestSendClassifiesStatuses(t *testing.T) {
	t.Parallel()
	s := newSender(t, Config{})
	for _, status := range []int{200, 201, 202, 204, 299, 300, 304, 400, 401, 404, 408, 410, 429, 500, 503, 599, 999} {
		url := serve(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) })
		want := ClassStatus
		if status < 300 {
			want = ClassOK
		}
		got := s.Send(t.Context(), newRequestTo(url))
		if wantClass(t, got, want, ""); got.Status != status {
			t.Errorf("status %d, want %d", got.Status, status)
		}
	}
}

func TestSendFollowsNoRedirect(t *testing.T) {
	t.Parallel()
	var followed atomic.Bool
	other := serve(t, func(http.ResponseWriter, *http.Request) { followed.Store(true) })
	s := newSender(t, Config{})
	for _, status := range []int{301, 302, 303, 307, 308} {
		url := serve(t, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, other, status) })
		got := s.Send(t.Context(), newRequestTo(url))
		wantClass(t, got, ClassStatus, "redirects are not followed")
		if got.Status != status || got.ResponseHeaders["Location"] != other {
			t.Errorf("status %d, location %q", got.Status, got.ResponseHeaders["Location"])
		}
	}
	if followed.Load() {
		t.Error("a redirect was followed")
	}
}

func TestSendIgnoresAProxyInTheEnvironment(t *testing.T) {
	var asked atomic.Bool
	proxy := serve(t, func(http.ResponseWriter, *http.Request) { asked.Store(true) })
	t.Setenv("HTTP_PROXY", proxy)
	t.Setenv("http_proxy", proxy)
	// net/http never uses a proxy for 127.0.0.1, so the request is for another
	// host, whose name does not exist.
	got := newSender(t, Config{}).Send(t.Context(), newRequestTo("http://posthorn-test.invalid/"))
	if asked.Load() || got.OK() {
		t.Errorf("the proxy was asked: %v, %+v", asked.Load(), got)
	}
}

func TestSendTimesOut(t *testing.T) {
	t.Parallel()
	trickle := func(conn net.Conn, piece string) {
		ticker := time.NewTicker(20 * time.Millisecond)
		defer ticker.Stop()
		for range ticker.C {
			if _, err := io.WriteString(conn, piece); err != nil {
				return
			}
		}
	}
	for name, c := range map[string]struct {
		handle func(net.Conn)
		status int
	}{
		"no answer": {handle: untilClosed},
		"a header that never ends": {handle: func(conn net.Conn) {
			_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nX-A: ")
			trickle(conn, "a")
		}},
		"interim responses without end": {handle: func(conn net.Conn) { trickle(conn, "HTTP/1.1 102 Processing\r\n\r\n") }},
		"a body one byte at a time": {status: 200, handle: func(conn net.Conn) {
			_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n")
			trickle(conn, "a")
		}},
		"a chunked body that stops": {status: 200, handle: func(conn net.Conn) {
			_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
			untilClosed(conn)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			closed := make(chan struct{}, 1)
			r := newRequestTo(rawServer(t, func(conn net.Conn) {
				c.handle(conn)
				closed <- struct{}{}
			}))
			r.Timeout = 200 * time.Millisecond
			got := newSender(t, Config{}).Send(t.Context(), r)
			wantClass(t, got, ClassTimeout, "within 200ms")
			if got.Status != c.status || got.Duration < r.Timeout || got.Duration > 20*r.Timeout {
				t.Errorf("status %d after %v", got.Status, got.Duration)
			}
			<-closed // the connection is not left open either
		})
	}
}

func TestSendTimesOutInTheTLSHandshake(t *testing.T) {
	t.Parallel()
	listener := listen(t, "127.0.0.1:0")
	defer func() { _ = listener.Close() }() // accepts by backlog, and never answers
	r := newRequestTo("https://" + listener.Addr().String())
	r.Timeout = 200 * time.Millisecond
	wantClass(t, newSender(t, Config{}).Send(t.Context(), r), ClassTimeout, "within 200ms")
}

func TestSendHoldsItsMaxTimeout(t *testing.T) {
	t.Parallel()
	r := newRequestTo(rawServer(t, untilClosed))
	r.Timeout = time.Hour
	wantClass(t, newSender(t, Config{MaxTimeout: 100 * time.Millisecond}).Send(t.Context(), r), ClassTimeout, "within 100ms")
}

func TestSendStoppedByUsIsCancelled(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	url := rawServer(t, func(conn net.Conn) {
		cancel()
		untilClosed(conn)
	})
	s := newSender(t, Config{})
	wantClass(t, s.Send(ctx, newRequestTo(url)), ClassCancelled, "stopped")
	wantClass(t, s.Send(ctx, newRequestTo(url)), ClassCancelled, "stopped")
}

func TestSendToABrokenServer(t *testing.T) {
	t.Parallel()
	reset := func(conn net.Conn) {
		if tcp, ok := conn.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0)
		}
	}
	write := func(text string, then ...func(net.Conn)) func(net.Conn) {
		return func(conn net.Conn) {
			_, _ = io.WriteString(conn, text)
			for _, f := range then {
				f(conn)
			}
		}
	}
	for name, c := range map[string]struct {
		handle func(net.Conn)
		class  Class
		status int
		has    string
	}{
		"closes without an answer":     {write(""), ClassConnect, 0, "closed the connection"},
		"resets without an answer":     {reset, ClassConnect, 0, "reset"},
		"closes within the headers":    {write("HTTP/1.1 200 OK\r\nA: b\r\n"), ClassConnect, 0, "closed the connection"},
		"closes within the body":       {write("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc"), ClassConnect, 200, "status 200, but"},
		"closes within a chunk":        {write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nabc"), ClassConnect, 200, "closed"},
		"closes before the last chunk": {write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"), ClassConnect, 200, "closed"},
		"speaks something else":        {write("SSH-2.0-OpenSSH_9.2\r\n"), ClassProtocol, 0, "not valid HTTP"},
		"sends a broken status":        {write("HTTP/1.1 abc OK\r\n\r\n"), ClassProtocol, 0, "not valid HTTP"},
		"sends a broken chunk":         {write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"), ClassProtocol, 200, "not valid HTTP"},
		"sends two lengths":            {write("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\na"), ClassProtocol, 0, "not valid HTTP"},
		"sends a header of 1 MB":       {write("HTTP/1.1 200 OK\r\nX-A: " + strings.Repeat("a", 1<<20) + "\r\n\r\n"), ClassProtocol, 0, "32 KiB"},
		"sends a million headers":      {write("HTTP/1.1 200 OK\r\n" + strings.Repeat("A: b\r\n", 1<<18) + "\r\n"), ClassProtocol, 0, "32 KiB"},
		"switches protocols":           {write("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n", untilClosed), ClassStatus, 101, "101"},
		"ends the body by closing":     {write("HTTP/1.1 200 OK\r\n\r\nabc"), ClassOK, 200, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var requests atomic.Int32
			url := rawServer(t, func(conn net.Conn) {
				requests.Add(1)
				c.handle(conn)
			})
			got := newSender(t, Config{}).Send(t.Context(), newRequestTo(url))
			wantClass(t, got, c.class, c.has)
			if got.Status != c.status || requests.Load() != 1 {
				t.Errorf("status %d, %d requests", got.Status, requests.Load())
			}
		})
	}
}

func TestSendToAClosedPort(t *testing.T) {
	t.Parallel()
	listener := listen(t, "127.0.0.1:0")
	address := listener.Addr().String()
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	wantClass(t, newSender(t, Config{}).Send(t.Context(), newRequestTo("http://"+address)), ClassConnect, "refused")
}

func TestSendKeepsABoundedPartOfTheBody(t *testing.T) {
	t.Parallel()
	const limit = 1000
	for _, c := range []struct {
		size      int
		chunked   bool
		truncated bool
	}{
		{0, false, false},
		{1, false, false},
		{limit, false, false},
		{limit + 1, false, true},
		{10 * limit, false, true},
		{limit, true, false},
		{limit + 1, true, true},
	} {
		t.Run(fmt.Sprintf("%d bytes, chunked %v", c.size, c.chunked), func(t *testing.T) {
			t.Parallel()
			body := strings.Repeat("a", c.size)
			url := serve(t, func(w http.ResponseWriter, _ *http.Request) {
				if !c.chunked {
					w.Header().Set("Content-Length", strconv.Itoa(c.size))
				}
				_, _ = io.WriteString(w, body)
				_ = http.NewResponseController(w).Flush()
			})
			got := newSender(t, Config{MaxResponseBody: limit}).Send(t.Context(), newRequestTo(url))
			wantClass(t, got, ClassOK, "")
			if string(got.ResponseBody) != body[:min(limit, c.size)] || got.ResponseTruncated != c.truncated {
				t.Errorf("kept %d bytes, truncated %v", len(got.ResponseBody), got.ResponseTruncated)
			}
		})
	}
}

func TestSendSurvivesBombs(t *testing.T) { //nolint:paralleltest // reads the program's memory
	var zipped bytes.Buffer
	zip := gzip.NewWriter(&zipped)
	for range 16 {
		_, _ = zip.Write(make([]byte, 1<<20))
	}
	if err := zip.Close(); err != nil {
		t.Fatal(err)
	}
	s := newSender(t, Config{})
	for name, c := range map[string]struct {
		handle func(http.ResponseWriter)
		max    int
	}{
		"a body without end": {max: 16 << 10, handle: func(w http.ResponseWriter) {
			piece := make([]byte, 64<<10)
			for {
				if _, err := w.Write(piece); err != nil {
					return
				}
			}
		}},
		"a length of terabytes": {max: 16 << 10, handle: func(w http.ResponseWriter) {
			w.Header().Set("Content-Length", "10000000000000")
			_, _ = w.Write(make([]byte, 1<<20))
			panic(http.ErrAbortHandler)
		}},
		"16 MB in gzip": {max: zipped.Len(), handle: func(w http.ResponseWriter) {
			w.Header().Set("Content-Encoding", "gzip")
			_, _ = w.Write(zipped.Bytes())
		}},
	} {
		url := serve(t, func(w http.ResponseWriter, _ *http.Request) { c.handle(w) })
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		got := s.Send(t.Context(), newRequestTo(url))
		runtime.ReadMemStats(&after)
		if !got.OK() || len(got.ResponseBody) > c.max || len(got.ResponseBody) == 0 {
			t.Errorf("%s: class %q %s, %d bytes kept", name, got.Class, got.Error, len(got.ResponseBody))
		}
		if grown := after.TotalAlloc - before.TotalAlloc; grown > 8<<20 {
			t.Errorf("%s: %d bytes allocated", name, grown)
		}
		if name == "16 MB in gzip" && got.ResponseHeaders["Content-Encoding"] != "gzip" {
			t.Errorf("%s: it was decompressed", name)
		}
	}
}

func TestSendRecordsHeadersWithinBounds(t *testing.T) {
	t.Parallel()
	url := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Set-Cookie", "session=very-secret")
		w.Header()["Accept"] = []string{"a", "b"}
		w.Header().Set("Age", "a\xffb\u0085c")
		for i := range 150 {
			w.Header().Set(fmt.Sprintf("X-%03d", i), strings.Repeat("v", 100))
		}
		w.Header().Set("Allow", strings.Repeat("v", 5000))
	})
	got := newSender(t, Config{}).Send(t.Context(), newRequestTo(url))
	wantClass(t, got, ClassOK, "")
	kept, total := got.ResponseHeaders, 0
	for name, value := range kept {
		total += len(name) + len(value)
		if strings.Contains(value, "very-secret") {
			t.Errorf("%s: %s", name, value)
		}
	}
	if len(kept) == 0 || len(kept) > maxKeptHeaders || total > maxKeptTotal {
		t.Errorf("%d headers with %d bytes", len(kept), total)
	}
	if kept["Accept"] != "a, b" || kept["Age"] != "a?b?c" || len(kept["Allow"]) != maxKeptValue+3 {
		t.Errorf("kept %q, %q and %d bytes", kept["Accept"], kept["Age"], len(kept["Allow"]))
	}
}

func TestSendReusesConnections(t *testing.T) {
	t.Parallel()
	var opened atomic.Int32
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		switch r.URL.Path {
		case "/error":
			w.WriteHeader(http.StatusInternalServerError)
			_, _ = io.WriteString(w, "no")
		case "/long": // longer than the limit, short enough to be read to its end
			w.Header().Set("Content-Length", strconv.Itoa(40<<10))
			_, _ = w.Write(make([]byte, 40<<10))
		}
	}))
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			opened.Add(1)
		}
	}
	server.Start()
	t.Cleanup(server.Close)
	s := newSender(t, Config{})
	for range 20 {
		for _, path := range []string{"/", "/error", "/long"} {
			if got := s.Send(t.Context(), newRequestTo(server.URL+path)); got.Status == 0 {
				t.Fatalf("%+v", got)
			}
		}
	}
	if n := opened.Load(); n != 1 {
		t.Errorf("%d connections for 60 attempts one after another", n)
	}
}

func TestSendReadsRetryAfter(t *testing.T) {
	t.Parallel()
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Retry-After", "120")
		status, _ := strconv.Atoi(strings.TrimPrefix(r.URL.Path, "/"))
		w.WriteHeader(status)
	})
	s := newSender(t, Config{})
	for status, want := range map[int]time.Duration{429: 2 * time.Minute, 503: 2 * time.Minute, 200: 0} {
		if got := s.Send(t.Context(), newRequestTo(url+"/"+strconv.Itoa(status))); got.RetryAfter != want {
			t.Errorf("status %d: %v, want %v", status, got.RetryAfter, want)
		}
	}
}

func TestNoRequestOutlivesItsSender(t *testing.T) {
	t.Parallel()
	s := New(Config{AllowNetworks: loopback()})
	url := serve(t, func(http.ResponseWriter, *http.Request) {})
	wantClass(t, s.Send(t.Context(), newRequestTo(url)), ClassOK, "")
	s.Close()
	s.Close()
	wantClass(t, s.Send(t.Context(), newRequestTo(url)), ClassOK, "")
	s.Close()
}

func TestConnectErrorSpeaksOfUsWhenItIsUs(t *testing.T) {
	t.Parallel()
	class, text := classify(&net.OpError{Op: "dial", Net: "tcp", Err: errors.New("something new at 10.0.0.1")})
	if class != ClassConnect || strings.Contains(text, "10.0.0.1") {
		t.Errorf("%s: %s", class, text)
	}
}
