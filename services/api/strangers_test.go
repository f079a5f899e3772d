package api_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"posthorn/services/api"
	"posthorn/services/internal/web"
)

func TestDNSRebindingIsRefused(t *testing.T) {
	t.Parallel()
	hosts, err := web.ParseHosts([]string{"posthorn.example.com"}, "")
	if err != nil {
		t.Fatal(err)
	}
	s := newServer(t, func(c *api.Config) { c.Hosts = hosts })
	routes, err := s.api.Routes()
	if err != nil {
		t.Fatal(err)
	}
	for _, route := range append(routes, "GET /nothing", "OPTIONS /events") {
		method, path, _ := strings.Cut(route, " ")
		s.do(method, path, "", "Host", "evil.example:3000", "Origin", "http://evil.example:3000").want(http.StatusMisdirectedRequest)
	}
	for _, host := range []string{"127.0.0.1:3000", "localhost", "app.localhost:1", "[::1]:3000", "posthorn.example.com"} {
		s.do("POST", "/like/1", "", "Host", host, "Origin", "http://"+host).want(202)
	}
	// A client with the key is not a web page.
	keyed := newServer(t, func(c *api.Config) { c.AdminKey = "0123456789abcdef" })
	keyed.do("GET", "/events", "", "Host", "api.example", "Authorization", "Bearer 0123456789abcdef").want(200)
	keyed.do("GET", "/healthz", "", "Host", "api.example").want(200)
}

func TestALikeByGetIsRefusedToOtherOrigins(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	for name, c := range map[string]struct {
		status  int
		headers []string
	}{
		"curl":                            {202, nil},
		"typed":                           {202, []string{"Sec-Fetch-Site", "none", "Sec-Fetch-Mode", "navigate"}},
		"a page of ours":                  {202, []string{"Sec-Fetch-Site", "same-origin"}},
		"an iframe":                       {403, []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "iframe"}},
		"a navigation":                    {403, []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-User", "?1"}},
		"an image of another port":        {403, []string{"Sec-Fetch-Site", "same-site", "Sec-Fetch-Dest", "image"}},
		"an image over plain HTTP":        {403, []string{"Referer", "http://evil.example/"}},
		"an image over plain HTTP, bare":  {403, []string{"Origin", "null"}},
		"an image of ours, by plain HTTP": {202, []string{"Host", "127.0.0.1:3000", "Referer", "http://127.0.0.1:3000/docs"}},
	} {
		if r := s.do("GET", "/like/1", "", c.headers...); r.Status != c.status {
			t.Errorf("%s: %d %s", name, r.Status, r.Body)
		}
	}
}

func TestWrongKeysAreThrottledCountedAndLogged(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	s := newServer(t, func(c *api.Config) {
		c.AdminKey = "0123456789abcdef"
		c.Logger = slog.New(slog.NewTextHandler(&log, nil))
	})
	const key = "Bearer 0123456789abcdef"
	statuses := map[int]int{}
	for n := range 200 {
		r := s.do("GET", "/events", "", "Authorization", fmt.Sprintf("Bearer guess-%d", n))
		statuses[r.Status]++
		if r.Status == http.StatusTooManyRequests && r.Header.Get("Retry-After") == "" {
			t.Fatal("429 without Retry-After")
		}
	}
	if statuses[401] < 10 || statuses[429] < 150 || statuses[401]+statuses[429] != 200 {
		t.Errorf("200 wrong keys are answered %v", statuses)
	}
	s.do("GET", "/events", "", "Authorization", key).want(200)
	s.do("GET", "/events", "").want(401) // a missing key does not count as a guess
	metrics := string(s.do("GET", "/metrics", "", "Authorization", key).want(200).Body)
	for reason, n := range map[string]int{"wrong": statuses[401], "throttled": statuses[429], "missing": 1} {
		if line := fmt.Sprintf("posthorn_api_unauthorized_total{reason=%q} %d\n", reason, n); !strings.Contains(metrics, line) {
			t.Errorf("metrics lack %s", line)
		}
	}
	if lines := strings.Count(log.String(), "wrong key"); lines != 1 || strings.Contains(log.String(), "guess-") {
		t.Errorf("logged %d times: %s", lines, &log)
	}
}

func TestHeadWorksWhereverGetDoes(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	id := s.do("POST", "/events", `{"type":"a"}`).want(202).event().ID
	routes, err := s.api.Routes()
	if err != nil {
		t.Fatal(err)
	}
	tried := 0
	for _, route := range routes {
		method, path, _ := strings.Cut(route, " ")
		if method != http.MethodGet || strings.HasPrefix(path, "/like/") {
			continue
		}
		path = strings.Replace(path, "/events/{id}", "/events/"+id, 1)
		get, head := s.do("GET", path, ""), s.do("HEAD", path, "")
		if head.Status != get.Status || head.Header.Get("Content-Type") != get.Header.Get("Content-Type") || len(head.Body) != 0 {
			t.Errorf("%s: GET %d %q, HEAD %d %q and %d bytes", path, get.Status, get.Header.Get("Content-Type"),
				head.Status, head.Header.Get("Content-Type"), len(head.Body))
		}
		tried++
	}
	if tried < 15 {
		t.Errorf("only %d routes were tried", tried)
	}
	before := len(s.do("GET", "/events", "").want(200).Body)
	s.do("HEAD", "/like/1", "").want(200)
	if after := len(s.do("GET", "/events", "").want(200).Body); after != before {
		t.Error("HEAD of a like likes")
	}
}

func TestTheLocationOfAnEventIsAURL(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	for _, id := range []string{"a/b", "a?b=c", "a#b", "100%", "%2e%2e", "a%2Fb", `\`, `"quoted"`, "a//b", "/", "http://evil"} {
		r := s.do("POST", "/events", fmt.Sprintf(`{"type":"a","id":%q}`, id)).want(202)
		location := r.Header.Get("Location")
		var got struct{ ID string }
		s.do("GET", location, "").want(200).decode(&got)
		if got.ID != id {
			t.Errorf("%s of %q is the event %q", location, id, got.ID)
		}
	}
}
