package web_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"posthorn/services/internal/web"
)

func TestOnlyANameOfOursIsAnswered(t *testing.T) {
	t.Parallel()
	hosts, err := web.ParseHosts([]string{"Posthorn.Example.com", " api "}, "events.internal:3000")
	if err != nil {
		t.Fatal(err)
	}
	for _, host := range []string{
		"127.0.0.1", "127.0.0.1:3000", "10.1.2.3:80", "[::1]", "[::1]:3000", "[fe80::1]:1", "localhost", "localhost:3000", "LOCALHOST:3000",
		"localhost.", "app.localhost:3000", "a.b.localhost", "posthorn.example.com", "POSTHORN.example.com.:8443", "api:3000", "events.internal:3000", "events.internal",
	} {
		if !hosts.Admit(host) {
			t.Errorf("%q is refused", host)
		}
	}
	for _, host := range []string{
		"", ":3000", ".", "evil.example", "evil.example:3000", "localhost.evil.example", "evillocalhost", ".localhost.evil", "posthorn.example.com.evil.example",
		"x.posthorn.example.com", "evil@localhost", "localhost:3000@evil", "localhost:evil", "127.0.0.1.evil.example", "127.0.0.1.", "0x7f.1", "2130706433", "127.1",
		"::1", "[::1", "[::1].evil.example", "[127.0.0.1]", "[evil]", "local host", "localhost/", "evil.example#.localhost", "\x00localhost", "ſ.localhost",
	} {
		if hosts.Admit(host) {
			t.Errorf("%q is admitted", host)
		}
	}
	for _, bad := range []string{"", "http://a", "a:80", "*", "*.a", "a/b", "bücher.de", "a b"} {
		if _, err := web.ParseHosts([]string{bad}, ""); err == nil || !strings.Contains(err.Error(), "posthorn.example.com") {
			t.Errorf("ParseHosts(%q) = %v", bad, err)
		}
	}
}

func TestAMisdirectedRequestReachesNoHandler(t *testing.T) {
	t.Parallel()
	reached := 0
	handler := web.Hosts{}.Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached++ }))
	for host, want := range map[string]int{"evil.example:3000": 421, "127.0.0.1:3000": 200} {
		r := httptest.NewRequestWithContext(t.Context(), "POST", "http://"+host+"/", nil)
		r.Header.Set("Origin", "http://"+host) // to the browser it is the page's own
		answer := httptest.NewRecorder()
		handler.ServeHTTP(answer, r)
		if answer.Code != want || want == 421 && !strings.Contains(answer.Body.String(), "POSTHORN_HOSTS") {
			t.Errorf("%s: %d %s", host, answer.Code, answer.Body)
		}
	}
	if reached != 1 {
		t.Errorf("the handler was reached %d times", reached)
	}
}

func TestAForeignPageIsToldFromOthers(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		ok   bool
		args []string
	}{
		{"curl", true, nil},
		{"typed into a browser", true, []string{"Sec-Fetch-Site", "none", "Sec-Fetch-Mode", "navigate"}},
		{"a page of ours", true, []string{"Sec-Fetch-Site", "same-origin", "Referer", "http://posthorn:3000/docs"}},
		{"a page of ours over plain HTTP", true, []string{"Origin", "http://posthorn:3000"}},
		{"an image of ours over plain HTTP", true, []string{"Referer", "http://posthorn:3000/docs"}},
		{"an iframe", false, []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "iframe"}},
		{"a navigation", false, []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-User", "?1"}},
		{"an image of another port", false, []string{"Sec-Fetch-Site", "same-site", "Sec-Fetch-Dest", "image"}},
		{"an image over plain HTTP", false, []string{"Referer", "http://evil.example/"}},
		{"an image of another port over plain HTTP", false, []string{"Referer", "http://posthorn:3001/"}},
		{"a form over plain HTTP", false, []string{"Origin", "http://evil.example", "Referer", "http://evil.example/"}},
		{"a sandboxed page", false, []string{"Origin", "null"}},
		{"a Referer that is none", false, []string{"Referer", "://"}},
		{"a Sec-Fetch-Site that is none of the known", false, []string{"Sec-Fetch-Site", "elsewhere"}},
	} {
		for _, method := range []string{"GET", "POST", "DELETE"} {
			r := httptest.NewRequestWithContext(t.Context(), method, "http://posthorn:3000/like/1", nil)
			for i := 0; i < len(c.args); i += 2 {
				r.Header.Set(c.args[i], c.args[i+1])
			}
			if err := web.CheckOrigin(r); (err == nil) != c.ok {
				t.Errorf("%s of %s: %v", method, c.name, err)
			}
		}
	}
}
