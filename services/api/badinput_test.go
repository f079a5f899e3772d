package api_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestBadInputIsAProblemThatNamesTheFieldAndStoresNothing(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	sub := s.subscribe(hook)
	records := s.count(`SELECT count(*) FROM posthorn.outbox`)
	types := func(n int) string {
		return `["` + strings.Join(strings.Split(strings.Repeat("A,", n-1)+"A", ","), `","`) + `"]`
	}
	deep := func(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
	subscription := func(field, value string) string {
		all := map[string]string{"url": `"https://example.com/"`, "eventTypes": `["A"]`}
		all[field] = value
		var parts []string
		for name, v := range all {
			parts = append(parts, fmt.Sprintf("%q:%s", name, v))
		}
		return "{" + strings.Join(parts, ",") + "}"
	}
	for name, c := range map[string]struct {
		method, path, body string
		status             int
		field              string
	}{
		"no JSON":                 {"POST", "/events", `{`, 400, ""},
		"no body":                 {"POST", "/events", ``, 415, "Content-Type"},
		"only space":              {"POST", "/events", ` `, 400, ""},
		"a number":                {"POST", "/events", `1`, 400, ""},
		"trailing garbage":        {"POST", "/events", `{"type":"A"} x`, 400, ""},
		"deep":                    {"POST", "/events", `{"type":"A","data":` + deep(10000) + `}`, 400, "data" + strings.Repeat("[0]", 63)},
		"duplicate key":           {"POST", "/events", `{"type":"A","type":"B"}`, 400, "type"},
		"duplicate key in data":   {"POST", "/events", `{"type":"A","data":[{"x":{"y":1,"\u0079":2}}]}`, 400, "data[0].x.y"},
		"NUL in data":             {"POST", "/events", `{"type":"A","data":"\u0000"}`, 400, "data"},
		"lone surrogate":          {"POST", "/events", `{"type":"A","data":"\ud800"}`, 400, "data"},
		"reversed surrogates":     {"POST", "/events", `{"type":"A","data":"\udc00\ud800"}`, 400, "data"},
		"number out of range":     {"POST", "/events", `{"type":"A","data":1e999}`, 400, "data"},
		"invalid UTF-8":           {"POST", "/events", "{\"type\":\"A\",\"data\":\"\xff\"}", 400, ""},
		"control character":       {"POST", "/events", "{\"type\":\"A\",\"data\":\"\x01\"}", 400, "data"},
		"leading zero":            {"POST", "/events", `{"type":"A","data":01}`, 400, ""},
		"unknown field":           {"POST", "/events", `{"type":"A","typ":"B"}`, 422, "typ"},
		"other case":              {"POST", "/events", `{"Type":"A"}`, 422, "Type"},
		"no type":                 {"POST", "/events", `{}`, 422, "type"},
		"empty type":              {"POST", "/events", `{"type":""}`, 422, "type"},
		"type with a space":       {"POST", "/events", `{"type":"A B"}`, 422, "type"},
		"type with a wildcard":    {"POST", "/events", `{"type":"A.*"}`, 422, "type"},
		"type with two dots":      {"POST", "/events", `{"type":"A..B"}`, 422, "type"},
		"long type":               {"POST", "/events", `{"type":"` + strings.Repeat("A", 129) + `"}`, 422, "type"},
		"type is null":            {"POST", "/events", `{"type":null}`, 422, "type"},
		"empty id":                {"POST", "/events", `{"type":"A","id":""}`, 422, "id"},
		"id with a dot":           {"POST", "/events", `{"type":"A","id":"a.b"}`, 422, "id"},
		"id with a line break":    {"POST", "/events", `{"type":"A","id":"a\nb"}`, 422, "id"},
		"long id":                 {"POST", "/events", `{"type":"A","id":"` + strings.Repeat("a", 129) + `"}`, 422, "id"},
		"long subject":            {"POST", "/events", `{"type":"A","subject":"` + strings.Repeat("a", 513) + `"}`, 422, "subject"},
		"no time":                 {"POST", "/events", `{"type":"A","occurredAt":"yesterday"}`, 422, "occurredAt"},
		"year 0":                  {"POST", "/events", `{"type":"A","occurredAt":"0000-01-01T00:00:00Z"}`, 422, "occurredAt"},
		"year 10000":              {"POST", "/events", `{"type":"A","occurredAt":"9999-12-31T23:59:59-23:59"}`, 422, "occurredAt"},
		"empty batch":             {"POST", "/events", `[]`, 422, ""},
		"batch with one bad":      {"POST", "/events", `[{"type":"A"},{"type":"B","x":1}]`, 422, "[1].x"},
		"batch with one no event": {"POST", "/events", `[{"type":"A"},7]`, 400, "[1]"},
		"big batch":               {"POST", "/events", "[" + strings.Repeat(`{"type":"A"},`, 1000) + `{"type":"A"}]`, 400, ""},

		"subscription: no JSON":            {"POST", "/subscription", `{"url":`, 400, ""},
		"subscription: list":               {"POST", "/subscription", `[]`, 422, ""},
		"subscription: nothing":            {"POST", "/subscription", `{}`, 422, "url"},
		"subscription: duplicate key":      {"POST", "/subscription", `{"url":"https://a/","url":"https://b/"}`, 400, "url"},
		"subscription: deep":               {"POST", "/subscription", deep(65), 400, strings.Repeat("[0]", 64)},
		"subscription: unknown field":      {"POST", "/subscription", subscription("urls", `1`), 422, "urls"},
		"subscription: other case":         {"POST", "/subscription", `{"URL":"https://a/","eventTypes":["A"]}`, 422, "URL"},
		"subscription: no event types":     {"POST", "/subscription", subscription("eventTypes", `[]`), 422, "eventTypes"},
		"subscription: null event types":   {"POST", "/subscription", subscription("eventTypes", `null`), 422, "eventTypes"},
		"subscription: 251 event types":    {"POST", "/subscription", subscription("eventTypes", types(251)), 422, "eventTypes"},
		"subscription: 51 wildcards":       {"POST", "/subscription", subscription("eventTypes", strings.ReplaceAll(types(51), `A`, `*.A`)), 422, "eventTypes"},
		"subscription: 3 hashes":           {"POST", "/subscription", subscription("eventTypes", `["#.a.#.b.#"]`), 422, "eventTypes[0]"},
		"subscription: 17 words":           {"POST", "/subscription", subscription("eventTypes", `["`+strings.Repeat("a.", 16)+`a"]`), 422, "eventTypes[0]"},
		"subscription: one pattern twice":  {"POST", "/subscription", subscription("eventTypes", `["#.#","#"]`), 422, "eventTypes[1]"},
		"replay: 3 hashes":                 {"POST", "/replays", `{"subscription":"sub_01a20c87-0425-7ea1-9ec4-43d4855a3496","from":1,"to":"now","eventTypes":["#.a.#.b.#"]}`, 422, "eventTypes[0]"},
		"type of 17 words":                 {"POST", "/events", `{"type":"` + strings.Repeat("a.", 16) + `a"}`, 422, "type"},
		"subscription: empty event type":   {"POST", "/subscription", subscription("eventTypes", `["A",""]`), 422, "eventTypes[1]"},
		"subscription: bad pattern":        {"POST", "/subscription", subscription("eventTypes", `["a*"]`), 422, "eventTypes[0]"},
		"subscription: same pattern twice": {"POST", "/subscription", subscription("eventTypes", `["a","a"]`), 422, "eventTypes[1]"},
		"subscription: relative URL":       {"POST", "/subscription", subscription("url", `"/hook"`), 422, "url"},
		"subscription: ftp":                {"POST", "/subscription", subscription("url", `"ftp://example.com/"`), 422, "url"},
		"subscription: userinfo":           {"POST", "/subscription", subscription("url", `"https://a:b@example.com/"`), 422, "url"},
		"subscription: long URL":           {"POST", "/subscription", subscription("url", `"https://example.com/`+strings.Repeat("a", 2048)+`"`), 422, "url"},
		"subscription: URL is a number":    {"POST", "/subscription", subscription("url", `1`), 422, "url"},
		"subscription: startFrom":          {"POST", "/subscription", subscription("startFrom", `"yesterday"`), 422, "startFrom"},
		"subscription: secret":             {"POST", "/subscription", subscription("secret", `"hunter2"`), 422, "secret"},
		"subscription: status":             {"POST", "/subscription", subscription("status", `"deleted"`), 422, "status"},
		"subscription: timeout":            {"POST", "/subscription", subscription("timeout", `"1h"`), 422, "timeout"},
		"subscription: timeout text":       {"POST", "/subscription", subscription("timeout", `"soon"`), 422, "timeout"},
		"subscription: maxInFlight":        {"POST", "/subscription", subscription("maxInFlight", `1000`), 422, "maxInFlight"},
		"subscription: huge maxInFlight":   {"POST", "/subscription", subscription("maxInFlight", `1e30`), 422, "maxInFlight"},
		"subscription: broken maxInFlight": {"POST", "/subscription", subscription("maxInFlight", `1.5`), 422, "maxInFlight"},
		"subscription: schedule":           {"POST", "/subscription", subscription("retry", `{"schedule":["1ms"]}`), 422, "retry.schedule"},
		"subscription: retry field":        {"POST", "/subscription", subscription("retry", `{"times":3}`), 422, "retry.times"},
		"subscription: patch to nothing":   {"PATCH", "/subscription/" + sub.ID, `{"url":null}`, 422, "url"},
		"subscription: patch is a list":    {"PATCH", "/subscription/" + sub.ID, `[]`, 400, ""},
		"subscription: patch unknown":      {"PATCH", "/subscription/" + sub.ID, `{"id":"x"}`, 422, "id"},
		"subscription: put half":           {"PUT", "/subscription/" + sub.ID, `{"url":"https://example.com/"}`, 422, "eventTypes"},
		"subscription: rotate to rubbish":  {"POST", "/subscription/" + sub.ID + "/rotate-secret", `{"secret":"x"}`, 422, "secret"},
		"subscription: test of bad type":   {"POST", "/subscription/" + sub.ID + "/test", `{"type":"a b"}`, 422, "type"},

		"like: unknown parameter": {"POST", "/like/1?user=x", ``, 422, "user"},
		"like: unknown field":     {"POST", "/like/1", `{"user":"x"}`, 422, "user"},
		"like: empty user":        {"POST", "/like/1?userId=", ``, 422, "userId"},
		"like: user is a number":  {"POST", "/like/1", `{"userId":1}`, 422, "userId"},
		"like: two users":         {"POST", "/like/1?userId=a", `{"userId":"b"}`, 422, "userId"},
		"like: NUL":               {"POST", "/like/%00", ``, 422, "photoId"},
		"like: not UTF-8":         {"POST", "/like/%ff", ``, 422, "photoId"},
		"like: long id":           {"GET", "/like/" + strings.Repeat("a", 257), ``, 422, "photoId"},
		"like: user not UTF-8":    {"GET", "/like/1?userId=%ff", ``, 422, "userId"},

		"list: unknown parameter":   {"GET", "/events?typ=A", ``, 422, "typ"},
		"list: limit":               {"GET", "/events?limit=100000", ``, 422, "limit"},
		"list: limit is text":       {"GET", "/subscription?limit=x", ``, 422, "limit"},
		"list: cursor":              {"GET", "/events?cursor=abc", ``, 400, "cursor"},
		"list: another's cursor":    {"GET", "/subscription?cursor=ZXZlbnRzOjI", ``, 400, "cursor"},
		"list: attempts cursor":     {"GET", "/subscription/" + sub.ID + "/attempts?cursor=ZXZlbnRzOjI", ``, 400, "cursor"},
		"list: time":                {"GET", "/events?since=yesterday", ``, 422, "since"},
		"list: order":               {"GET", "/events?order=position%3Bdrop", ``, 422, "order"},
		"list: status":              {"GET", "/subscription?status=deleted", ``, 422, "status"},
		"list: NUL in the subject":  {"GET", "/events?subject=%00", ``, 422, "subject"},
		"list: event type with NUL": {"GET", "/subscription?eventType=%00", ``, 422, "eventType"},
		"list: URL with NUL":        {"GET", "/subscription?url=%00", ``, 422, "url"},
		"unknown subscription":      {"GET", "/subscription/sub_01a20c87-0425-7ea1-9ec4-43d4855a3496", ``, 404, "-"},
		"no subscription id":        {"GET", "/subscription/1", ``, 404, "-"},
		"pause unknown":             {"POST", "/subscription/1/pause", ``, 404, "-"},
		"unknown event":             {"GET", "/events/evt_1", ``, 404, "-"},
		"no event id":               {"GET", "/events/a%00b", ``, 404, "-"},
		"deliveries of unknown":     {"GET", "/events/evt_1/deliveries", ``, 404, "-"},
		"unknown path":              {"GET", "/nothing", ``, 404, "-"},
		"photo not UTF-8":           {"GET", "/photos/%ff", ``, 422, "photoId"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			here := *s
			here.t = t
			r := here.do(c.method, c.path, c.body).want(c.status)
			if c.field != "-" && !(c.field == "" && r.Status == 400) {
				r.names(c.field)
			}
		})
	}
	t.Cleanup(func() {
		var n int64
		if err := s.db.QueryRow(`SELECT count(*) FROM posthorn.outbox`).Scan(&n); err != nil || n != records { //nolint:noctx // in Cleanup
			t.Errorf("outbox has %d records instead of %d (%v)", n, records, err)
		}
	})
}

func TestWrongMethodsAreRefusedWithAllow(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	for path, allow := range map[string]string{
		"/like/1":               "GET, HEAD, POST, DELETE",
		"/events":               "GET, HEAD, POST",
		"/events/x":             "GET, HEAD",
		"/subscription":         "GET, HEAD, POST",
		"/subscriptions/x":      "GET, HEAD, PUT, PATCH, DELETE",
		"/subscription/x/pause": "POST",
		"/photos/1":             "GET, HEAD",
		"/healthz":              "GET, HEAD",
	} {
		if r := s.do("OPTIONS", path, "").want(405); r.Header.Get("Allow") != allow {
			t.Errorf("%s: Allow: %q, want %q", path, r.Header.Get("Allow"), allow)
		}
	}
}

func TestWrongContentTypesAreRefused(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	for _, media := range []string{"", "text/plain", "application/x-www-form-urlencoded", "application/json; charset=latin1", "application/", "application/cloudevents+xml"} {
		for _, path := range []string{"/events", "/subscription"} {
			s.do("POST", path, `{"type":"A"}`, "Content-Type", media).want(415).names("Content-Type")
		}
	}
	s.do("POST", "/like/1", `{"userId":"x"}`, "Content-Type", "text/plain").want(415)
	s.do("POST", "/events", `{"type":"A"}`, "Content-Type", "Application/JSON; charset=UTF-8").want(202)
	s.do("POST", "/subscription", hook, "Content-Type", "application/json;charset=utf-8").want(201)
}

func TestALongBodyIsRefusedBeforeItIsRead(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	for _, path := range []string{"/events", "/subscription", "/like/1"} {
		conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", s.http.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		// The body is declared and never sent.
		_, err = fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n", path, 256<<10+1)
		if err != nil {
			t.Fatal(err)
		}
		res, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if res.StatusCode != 413 {
			t.Errorf("%s: %d, want 413", path, res.StatusCode)
		}
	}
}

func TestAnEndlessBodyIsRefusedAtTheLimit(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	for _, path := range []string{"/events", "/subscription", "/like/1"} {
		endless := io.MultiReader(strings.NewReader(`{"type":"A","data":"`), bytes.NewReader(bytes.Repeat([]byte("a"), 10<<20)))
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.http.URL+path, endless)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		res, err := s.http.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if res.StatusCode != 413 {
			t.Errorf("%s: %d, want 413", path, res.StatusCode)
		}
	}
	body := `{"type":"A","data":"` + strings.Repeat("a", 256<<10-22) + `"}`
	s.do("POST", "/events", body).want(202)
	s.do("POST", "/events", body+" ").want(413)
}

func TestATruncatedBodyIsNotAServerError(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	for _, head := range []string{"Content-Length: 100\r\n\r\n{\"type\":\"A\"}", "Transfer-Encoding: chunked\r\n\r\nzz\r\n", "Transfer-Encoding: chunked\r\n\r\n5\r\nab"} {
		for _, path := range []string{"/events", "/subscription"} {
			conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", s.http.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
				t.Fatal(err)
			}
			if _, err = fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n%s", path, head); err != nil {
				t.Fatal(err)
			}
			if tcp, ok := conn.(*net.TCPConn); ok {
				_ = tcp.CloseWrite()
			}
			res, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatalf("%s %q: %v", path, head, err)
			}
			_ = res.Body.Close()
			_ = conn.Close()
			if res.StatusCode != 400 {
				t.Errorf("%s %q: %d, want 400", path, head, res.StatusCode)
			}
		}
	}
	if n := s.events(); n != 0 {
		t.Errorf("%d events were stored", n)
	}
}
