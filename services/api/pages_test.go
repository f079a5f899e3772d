package api_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"posthorn/services/api"
	"posthorn/services/internal/postgres"
)

// pageRoom limits a page on the wire: its content, the one item that may exceed
// it, and the JSON around them.
const pageRoom = postgres.PageBytes + 400<<10

// fill adds the given number of events of 250 KB.
func (s *server) fill(events int) {
	s.t.Helper()
	s.exec(`INSERT INTO posthorn.outbox (id, type, subject, data)
		SELECT 'e' || n, 'BIG', 's', convert_to('"' || repeat('a', 250000) || '"', 'UTF8') FROM generate_series(1, $1) n`, events)
}

func (s *server) exec(query string, args ...any) {
	s.t.Helper()
	if _, err := s.db.ExecContext(s.t.Context(), query, args...); err != nil {
		s.t.Fatal(err)
	}
}

// pages follows a list to its end and returns the number of pages and items. No
// page may be empty or too large, and no item may come twice.
func (s *server) pages(path string, key func(map[string]any) string) (pages, items int) {
	s.t.Helper()
	seen := map[string]bool{}
	for next := ""; ; pages++ {
		var page struct {
			Items      []map[string]any
			NextCursor string
		}
		r := s.do("GET", path+next, "").want(200)
		if len(r.Body) > pageRoom {
			s.t.Fatalf("GET %s: a page of %d bytes", path, len(r.Body))
		}
		r.decode(&page)
		if len(page.Items) == 0 {
			s.t.Fatalf("GET %s: page %d is empty", path, pages)
		}
		for _, item := range page.Items {
			if seen[key(item)] {
				s.t.Fatalf("GET %s: %s appears twice", path, key(item))
			}
			seen[key(item)] = true
		}
		if page.NextCursor == "" {
			return pages + 1, len(seen)
		}
		next = "&cursor=" + page.NextCursor
	}
}

func TestPagesEndByTheirBytes(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	sub := s.subscribe(hook)
	uuid := strings.TrimPrefix(sub.ID, "sub_")
	s.fill(10)
	s.exec(`INSERT INTO posthorn.attempts (position, subscription_id, number, cause, started_at, duration, error_class, response_body, next_step)
		SELECT 2, $1, n, 'live', clock_timestamp(), '1s', 'status', convert_to(repeat('b', 64000), 'UTF8'), 'retrying'
		FROM generate_series(1, 50) n`, uuid)
	s.exec(`INSERT INTO posthorn.deliveries (position, subscription_id, event_id, status, last_error, finished_at)
		SELECT n, $1, 'e', 'dead', repeat('c', 200000), now() FROM generate_series(2, 11) n`, uuid)
	s.exec(`INSERT INTO posthorn.replays (id, account, subscription_id, cause, from_position, to_position, position, event_ids)
		SELECT gen_random_uuid(), 'default', $1, 'replay', 0, 1, 0, ARRAY(SELECT repeat('d', 120) || m FROM generate_series(1, 1000) m)
		FROM generate_series(1, 20)`, uuid)
	s.exec(`INSERT INTO posthorn.subscriptions (id, url, event_types, description, timeout, max_in_flight, secret)
		SELECT gen_random_uuid(), 'https://a/', ARRAY['A'], repeat('e', 300000), '15s', 8, '' FROM generate_series(1, 8)`)

	id := func(item map[string]any) string { return fmt.Sprint(item["id"]) }
	for _, c := range []struct {
		path  string
		key   func(map[string]any) string
		items int
	}{
		{"/events?limit=1000", id, 10},
		{"/events?limit=1000&order=asc", id, 10},
		{"/events?limit=1000&type=BIG&subject=s&since=2020-01-01T00:00:00Z", id, 10},
		{"/subscription/" + sub.ID + "/attempts?limit=1000", func(item map[string]any) string { return fmt.Sprint(item["number"]) }, 50},
		{"/dead-letters?limit=1000", id, 10},
		{"/dead-letters?limit=1000&subscription=" + sub.ID, id, 10},
		{"/replays?limit=1000", id, 20},
		{"/subscription?limit=1000", id, 9},
	} {
		pages, items := s.pages(c.path, c.key)
		if items != c.items || pages < 2 {
			t.Errorf("GET %s: %d items on %d pages, want %d on several", c.path, items, pages, c.items)
		}
	}
	// A single item that is larger than a page is a page.
	s.exec(`INSERT INTO posthorn.outbox (id, type, data) VALUES ('big', 'HUGE', convert_to('"' || repeat('a', 1048574) || '"', 'UTF8'))`)
	var page struct {
		Items      []struct{ ID string }
		NextCursor string
	}
	if s.do("GET", "/events?limit=2", "").want(200).decode(&page); len(page.Items) != 1 || page.Items[0].ID != "big" || page.NextCursor == "" {
		t.Errorf("the page of an event of a megabyte: %+v", page)
	}
	s.do("GET", "/events/big", "").want(200)

	var preview struct {
		Matched int
		First   []struct{ ID string }
	}
	r := s.do("POST", "/replays", `{"subscription":"`+sub.ID+`","dryRun":true,"filter":"none"}`).want(200)
	if r.decode(&preview); len(r.Body) > pageRoom || preview.Matched != 11 || len(preview.First) < 3 || preview.First[0].ID != "e1" {
		t.Errorf("a dry run of 11 events has %d bytes, %d matched and %d shown", len(r.Body), preview.Matched, len(preview.First))
	}
	var detail struct {
		AttemptsMade []struct{ Number int }
		MoreAttempts bool
	}
	r = s.do("GET", "/deliveries/dlv_2_"+uuid, "").want(200)
	r.decode(&detail)
	if n := len(detail.AttemptsMade); n < 10 || n == 50 || !detail.MoreAttempts || detail.AttemptsMade[n-1].Number != 50 {
		t.Errorf("a delivery with 50 large attempts shows %d, more %v, of %d bytes", n, detail.MoreAttempts, len(r.Body))
	}
}

func TestPagesEndByTheirNumberToo(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	for range 5 {
		s.subscribe(hook)
		s.do("POST", "/events", `{"type":"A"}`).want(202)
	}
	id := func(item map[string]any) string { return fmt.Sprint(item["id"]) }
	for _, path := range []string{"/events?limit=2", "/events?limit=2&order=asc", "/subscription?limit=2"} {
		if pages, items := s.pages(path, id); pages != 3 || items != 5 {
			t.Errorf("GET %s: %d items on %d pages, want 5 on 3", path, items, pages)
		}
	}
	for _, path := range []string{"/events?limit=5", "/events?limit=5&order=asc", "/subscription?limit=5"} {
		if pages, items := s.pages(path, id); pages != 1 || items != 5 {
			t.Errorf("GET %s: %d items on %d pages, want 5 on 1", path, items, pages)
		}
	}
}

// neverReading opens connections that send a request and do not read, through a
// server whose sockets buffer almost nothing.
func neverReading(t *testing.T, s *server, n int, path string) (open *atomic.Int64) {
	t.Helper()
	open = new(atomic.Int64)
	server := httptest.NewUnstartedServer(s.api)
	server.Config.ConnState = func(c net.Conn, state http.ConnState) {
		switch state { //nolint:exhaustive // only the ends of a connection count
		case http.StateNew:
			open.Add(1)
			if tcp, ok := c.(*net.TCPConn); ok {
				_ = tcp.SetWriteBuffer(4 << 10)
			}
		case http.StateClosed:
			open.Add(-1)
		}
	}
	server.Start()
	t.Cleanup(server.Close)
	for range n {
		conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", server.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		if tcp, ok := conn.(*net.TCPConn); ok {
			_ = tcp.SetReadBuffer(4 << 10)
		}
		if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n", path); err != nil {
			t.Fatal(err)
		}
	}
	return open
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

//nolint:paralleltest // it measures the memory of the process
func TestUnreadListsTakeLittleMemoryAndAreDisconnected(t *testing.T) {
	s := newServer(t, func(c *api.Config) { c.WriteTimeout = time.Second })
	s.fill(400)
	for _, path := range []string{"/events?limit=1000", "/events?limit=1000&order=asc"} {
		before := heap()
		open := neverReading(t, s, 8, path)
		waitUntil(t, func() bool { return open.Load() == 8 })
		most := int64(0)
		waitUntil(t, func() bool { // a client that does not read is disconnected
			most = max(most, heap()-before)
			return open.Load() == 0
		})
		t.Logf("GET %s: the heap grew by %d KiB", path, most>>10)
		if most > 64<<20 {
			t.Errorf("GET %s by eight clients that do not read took %d MiB", path, most>>20)
		}
	}
}

func TestARequestForALargeResponseGets503WithoutMemory(t *testing.T) {
	t.Parallel()
	s := newServer(t, func(c *api.Config) { c.WriteTimeout = time.Minute })
	s.fill(4)
	release := api.TakeRoom(s.api)
	r := s.do("GET", "/events", "").want(503)
	if r.Header.Get("Retry-After") == "" {
		t.Error("a 503 without Retry-After")
	}
	// Small responses are still sent.
	s.do("GET", "/photos/1", "").want(200)
	s.subscribe(hook)
	release()
	s.do("GET", "/events", "").want(200)
}

// watched is a listener that records the last write deadline of its
// connections.
type watched struct {
	net.Listener
	deadline atomic.Pointer[time.Time]
}

func (l *watched) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	return watchedConn{c, l}, err
}

type watchedConn struct {
	net.Conn
	listener *watched
}

func (c watchedConn) SetWriteDeadline(at time.Time) error {
	c.listener.deadline.Store(&at)
	return c.Conn.SetWriteDeadline(at)
}

func TestTheDeadlineOfAResponseDoesNotApplyToTheNext(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.fill(4)
	server := httptest.NewUnstartedServer(s.api)
	l := &watched{Listener: server.Listener}
	server.Listener = l
	server.Start()
	t.Cleanup(server.Close)
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	in := bufio.NewReader(conn)
	for _, path := range []string{"/events", "/like/1", "/events/none", "/like/2"} {
		if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n", path); err != nil {
			t.Fatal(err)
		}
		res, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatal(err)
		}
		n, err := io.Copy(io.Discard, res.Body)
		_ = res.Body.Close()
		if err != nil || res.StatusCode >= 500 || path == "/events" && res.ContentLength != n {
			t.Fatalf("GET %s: %d with %d bytes, %v", path, res.StatusCode, n, err)
		}
		// A response to a like means that the previous response is finished.
		if at := l.deadline.Load(); strings.HasPrefix(path, "/like") && (at == nil || !at.IsZero()) {
			t.Fatalf("GET %s has the deadline of the previous response, %v", path, at)
		}
	}
}
