package api_test

import (
	"bytes"
	"compress/gzip"
	"strings"
	"testing"
	"unicode/utf16"
)

func zipped(t *testing.T, parts ...string) string {
	t.Helper()
	var b bytes.Buffer
	for _, part := range parts { // each a separate gzip member
		z := gzip.NewWriter(&b)
		if _, err := z.Write([]byte(part)); err != nil {
			t.Fatal(err)
		}
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return b.String()
}

// bodies are the routes that take a body, each with a valid one.
func bodies(s *server) map[[2]string]string {
	sub := "/subscription/" + s.subscribe(hook).ID
	return map[[2]string]string{
		{"POST", "/events"}:              `{"type":"A","data":{"a": 1}}`,
		{"POST", "/like/1"}:              `{"userId":"u"}`,
		{"DELETE", "/like/1"}:            `{}`,
		{"POST", "/subscription"}:        hook,
		{"PUT", sub}:                     hook,
		{"PATCH", sub}:                   `{"description":"a"}`,
		{"POST", sub + "/test"}:          `{"data":1}`,
		{"POST", sub + "/rotate-secret"}: `{}`,
		{"POST", "/replays"}:             `{"subscription":"` + strings.TrimPrefix(sub, "/subscription/") + `","dryRun":true}`,
	}
}

func TestACompressedBodyIsAcceptedOnEveryRoute(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	for route, body := range bodies(s) {
		for _, coding := range []string{"gzip", "GZIP", "x-gzip", "identity, gzip", " gzip ,"} {
			r := s.do(route[0], route[1], zipped(t, body), "Content-Encoding", coding)
			if r.Status >= 300 {
				t.Errorf("%s, %s: %d %s", route, coding, r.Status, r.Body)
			}
		}
		for _, coding := range []string{"identity", "", ","} {
			if r := s.do(route[0], route[1], body, "Content-Encoding", coding); r.Status >= 300 {
				t.Errorf("%s, %s: %d %s", route, coding, r.Status, r.Body)
			}
		}
	}
	s.do("POST", "/events", zipped(t, `{"type":`, `"A","id":"two-members"}`), "Content-Encoding", "gzip").want(202)
	s.do("POST", "/events", zipped(t, `{"type":"A","id":"two-members"}`), "Content-Encoding", "gzip").want(202)
	s.do("GET", "/events", "", "Content-Encoding", "br").want(200)
	// The stored bytes are those that were compressed.
	s.do("POST", "/events", zipped(t, `{"type":"A","id":"bytes","data":{"a" : 1}}`), "Content-Encoding", "gzip").want(202)
	if n := s.count(`SELECT count(*) FROM posthorn.outbox WHERE id = 'bytes' AND data = '{"a" : 1}'`); n != 1 {
		t.Error("the bytes of the data changed")
	}
	// A key belongs to the request, with or without compression.
	s.do("POST", "/subscription", hook, "Idempotency-Key", "k").want(201)
	s.do("POST", "/subscription", zipped(t, hook), "Idempotency-Key", "k", "Content-Encoding", "gzip").want(201)
}

func TestOtherCodingsAreRefusedByName(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	for route, body := range bodies(s) {
		for _, coding := range []string{"br", "deflate", "zstd", "compress", "gzip, gzip", "gzip, br", "aes128gcm", "*", "gzip;q=1", "\"gzip\"", strings.Repeat("x", 3000)} {
			r := s.do(route[0], route[1], body, "Content-Encoding", coding).want(415)
			r.names("Content-Encoding")
			if r.Header.Get("Accept-Encoding") != "gzip, identity" || !strings.Contains(string(r.Body), strings.Trim(coding, `"`)[:1]) || len(r.Body) > 1000 {
				t.Errorf("%s, %s: Accept-Encoding %q, %s", route, coding, r.Header.Get("Accept-Encoding"), r.Body)
			}
		}
	}
}

func TestACompressedBodyIsBounded(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	for route := range bodies(s) {
		bomb := zipped(t, `{"type":"A","data":"`+strings.Repeat("a", 64<<20)+`"}`)
		s.do(route[0], route[1], bomb, "Content-Encoding", "gzip").want(413)
		s.do(route[0], route[1], strings.Repeat("a", 256<<10+1), "Content-Encoding", "gzip").want(413)
		whole := zipped(t, `{"type":"A"}`)
		for name, broken := range map[string]string{
			"no gzip": `{"type":"A"}`, "broken off": whole[:len(whole)-4], "head alone": whole[:5], "changed": strings.Replace(whole, whole[12:14], "zz", 1),
			"something behind": whole + "x", "zlib": "\x78\x9c\x03\x00\x00\x00\x00\x01",
		} {
			r := s.do(route[0], route[1], broken, "Content-Encoding", "gzip").want(400)
			if r.names("Content-Encoding"); !strings.Contains(string(r.Body), "gzip") {
				t.Errorf("%s, %s: %s", route, name, r.Body)
			}
		}
	}
	s.do("POST", "/events", zipped(t, `{"type":"A","data":"`+strings.Repeat("a", 256<<10-22)+`"}`), "Content-Encoding", "gzip").want(202)
	s.do("POST", "/events", zipped(t, `{"type":"A","data":"`+strings.Repeat("a", 256<<10-21)+`"}`), "Content-Encoding", "gzip").want(413)
}

func TestTheCharsetIsUTF8(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	for route, body := range bodies(s) {
		for _, charset := range []string{"utf-8", "UTF-8", "utf8", "UTF8", `"utf-8"`, `"UTF8"`, "us-ascii"} {
			if r := s.do(route[0], route[1], body, "Content-Type", "application/json; charset="+charset); r.Status >= 300 {
				t.Errorf("%s, %s: %d %s", route, charset, r.Status, r.Body)
			}
		}
		for _, charset := range []string{"latin1", "iso-8859-1", "windows-1252", "utf-16", `"utf-16le"`, "utf-7"} {
			r := s.do(route[0], route[1], body, "Content-Type", "application/json; charset="+charset).want(415)
			if r.names("Content-Type"); !strings.Contains(string(r.Body), strings.Trim(charset, `"`)) || !strings.Contains(string(r.Body), "want utf-8") {
				t.Errorf("%s, %s: %s", route, charset, r.Body)
			}
		}
	}
	r := s.do("POST", "/events", `{}`, "Content-Type", "application/cloudevents+json; charset=latin1").want(415)
	if !strings.Contains(string(r.Body), "latin1") {
		t.Errorf("%s", r.Body)
	}
}

func TestAByteOrderMark(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	utf16Of := func(text string, low, high int) string {
		var b strings.Builder
		for _, unit := range utf16.Encode([]rune(text)) {
			b.WriteByte(byte(unit >> low))
			b.WriteByte(byte(unit >> high))
		}
		return b.String()
	}
	for route, body := range bodies(s) {
		if r := s.do(route[0], route[1], "\xef\xbb\xbf"+body); r.Status >= 300 {
			t.Errorf("%s with a UTF-8 byte order mark: %d %s", route, r.Status, r.Body)
		}
		if r := s.do(route[0], route[1], zipped(t, "\xef\xbb\xbf"+body), "Content-Encoding", "gzip"); r.Status >= 300 {
			t.Errorf("%s with a UTF-8 byte order mark, compressed: %d %s", route, r.Status, r.Body)
		}
		for _, wide := range []string{
			"\xff\xfe" + utf16Of(body, 0, 8), "\xfe\xff" + utf16Of(body, 8, 0), utf16Of(body, 0, 8), utf16Of(body, 8, 0),
			"\x00\x00\xfe\xff\x00\x00\x00{", "\xff\xfe\x00\x00{\x00\x00\x00",
		} {
			if r := s.do(route[0], route[1], wide).want(400); !strings.Contains(string(r.Body), "UTF-16") {
				t.Errorf("%s in UTF-16: %s", route, r.Body)
			}
		}
		if r := s.do(route[0], route[1], "\xef\xbb\xbf\xef\xbb\xbf"+body); r.Status != 400 {
			t.Errorf("%s with two marks: %d %s", route, r.Status, r.Body)
		}
	}
	const ce = `{"specversion":"1.0","id":"1","source":"/a","type":"A"}`
	s.do("POST", "/events", "\xef\xbb\xbf"+ce, "Content-Type", "application/cloudevents+json").want(202)
}
