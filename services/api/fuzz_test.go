package api_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"unicode/utf8"
)

// Every input gets a response, and never a 500; after a 2xx the event is stored.
func FuzzPostEvents(f *testing.F) {
	for _, seed := range []string{
		`{"type":"A"}`, `{"type":"A","id":"x","subject":"s","data":{"a":[1,2,{"b":null}]},"occurredAt":"2026-01-01T00:00:00Z"}`,
		`[{"type":"A"},{"type":"B.c","timestamp":"2026-01-01T00:00:00.123456789+23:59"}]`, `[]`, `{}`, `null`, `"`, `{"type":"A","data":"\ud83d\ude00"}`,
		`{"type":"A","data":"\u0000"}`, `{"type":"A","data":1e400}`, `{"type":"A","data":-0.0e-0}`, `{"type":"A","subject":"\u0000"}`, `{"type":"\ufffe"}`,
		`{"specversion":"1.0","id":"1","source":"s","type":"A","data_base64":"AA=="}`, `{"type":"A","id":"\"\\"}`, "\xff", `{"a":`, `[[[[`,
		`{"type":"A","occurredAt":"0001-01-01T00:00:00Z"}`, `{"type":"A","occurredAt":"9999-12-31T23:59:59.9999999Z"}`, `{"type":"A","data":"é\\"}`,
	} {
		f.Add([]byte(seed), byte(0))
		f.Add([]byte(seed), byte(1))
		f.Add([]byte(seed), byte(2))
		f.Add([]byte(seed), byte(3))
	}
	s := newServer(f)
	f.Fuzz(func(t *testing.T, body []byte, mode byte) {
		req := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/events", strings.NewReader(string(body)))
		req.Header.Set("Content-Type", []string{"application/json", "application/cloudevents+json", "application/cloudevents-batch+json", "application/json"}[mode%4])
		if mode%4 == 3 {
			req.Header.Set("Ce-Specversion", "1.0")
			req.Header.Set("Ce-Id", string(body))
			req.Header.Set("Ce-Type", "A")
			req.Header.Set("Ce-Source", string(body))
			req.Header.Set("Ce-Ext", string(body))
		}
		checkNoServerError(t, s, req)
	})
}

func FuzzPostSubscription(f *testing.F) {
	for _, seed := range []string{
		hook, `{"url":"http://[::1]:80/","eventTypes":["#","*.a"],"retry":{"schedule":["5s"]},"timeout":"1s","maxInFlight":1}`, `{}`, `[]`, `null`,
		`{"url":"http://x/\u0000","eventTypes":["A"]}`, `{"url":"http://x/","eventTypes":["A"],"description":"\ud800"}`, `{"url":null,"eventTypes":[null]}`,
		`{"url":"http://x/","eventTypes":["A"],"maxInFlight":1e99}`, `{"url":"http://x/","eventTypes":["A"],"timeout":"9223372036854775807ns"}`,
		`{"url":"http://x/","eventTypes":["A"],"retry":{"schedule":["9999999999h"]}}`, `{"url":"http://x/","eventTypes":["A"],"secret":"whsec_AAAA"}`,
		`{"url":"http://x/","eventTypes":["A"],"description":"\u2028"}`,
	} {
		f.Add([]byte(seed))
	}
	s := newServer(f)
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, method := range []string{http.MethodPost, http.MethodPatch} {
			path := "/subscription"
			if method == http.MethodPatch {
				path += "/sub_01a20c87-0425-7ea1-9ec4-43d4855a3496"
			}
			req := httptest.NewRequestWithContext(t.Context(), method, path, strings.NewReader(string(body)))
			req.Header.Set("Content-Type", "application/json")
			checkNoServerError(t, s, req)
		}
	})
}

func checkNoServerError(t *testing.T, s *server, req *http.Request) {
	t.Helper()
	w := httptest.NewRecorder()
	s.api.ServeHTTP(w, req)
	if w.Code >= 500 || !utf8.Valid(w.Body.Bytes()) {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if w.Code >= 400 && w.Header().Get("Content-Type") != "application/problem+json" {
		t.Errorf("%d with %s", w.Code, w.Header().Get("Content-Type"))
	}
}
