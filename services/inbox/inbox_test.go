package inbox

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"posthorn/events/webhook"
)

func serve(t *testing.T, config Config) (*Inbox, string) {
	t.Helper()
	i := New(config)
	server := httptest.NewServer(i)
	t.Cleanup(server.Close)
	t.Cleanup(i.Close)
	return i, server.URL
}

type answer struct {
	status int
	header http.Header
	body   string
}

func do(t *testing.T, method, url, body string, headers ...string) answer {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for n := 0; n < len(headers); n += 2 {
		request.Header.Set(headers[n], headers[n+1])
	}
	response, err := http.DefaultTransport.RoundTrip(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{response.StatusCode, response.Header, string(text)}
}

func view(t *testing.T, url string) View {
	t.Helper()
	got := do(t, http.MethodGet, url, "")
	if got.status != 200 {
		t.Fatalf("GET %s: %d %s", url, got.status, got.body)
	}
	var v View
	if err := json.Unmarshal([]byte(got.body), &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func TestAnyRequestIsRecorded(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC)
	_, base := serve(t, Config{Now: func() time.Time { return now }})
	for n, method := range []string{"POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"} {
		if got := do(t, method, base+"/my-album?a=b", `{"n":1.0}`, "X-Test", "yes"); got.status != 200 || got.body != "recorded\n" {
			t.Fatalf("%s: %d %q", method, got.status, got.body)
		}
		v := view(t, base+"/my-album")
		if v.Bin != "my-album" || v.Received != n+1 || len(v.Requests) != n+1 {
			t.Fatalf("after %s: %+v", method, v)
		}
		r := v.Requests[0] // the newest comes first
		if r.Number != n+1 || r.Method != method || r.Path != "/my-album" || r.Query != "a=b" || !r.At.Equal(now) ||
			string(r.JSON) != `{"n":1.0}` && strings.Join(strings.Fields(string(r.JSON)), "") != `{"n":1.0}` || r.Answer.Status != 200 {
			t.Errorf("recorded %+v", r)
		}
		found := false
		for _, h := range r.Headers {
			found = found || h == Header{"X-Test", "yes"}
		}
		if !found {
			t.Errorf("headers %v", r.Headers)
		}
	}
}

func TestAGetShowsTheBinUnlessItIsAWebhook(t *testing.T) {
	t.Parallel()
	_, base := serve(t, Config{})
	do(t, http.MethodGet, base+"/a", "")
	do(t, http.MethodGet, base+"/a", "", "Accept", "text/html")
	do(t, http.MethodHead, base+"/a", "")
	if v := view(t, base+"/a"); v.Received != 0 {
		t.Errorf("%d recorded", v.Received)
	}
	if bins := do(t, http.MethodGet, base+"/", ""); strings.TrimSpace(bins.body) != "[]" {
		t.Errorf("looking made a bin: %s", bins.body)
	}
	do(t, http.MethodGet, base+"/a", "", "webhook-id", "evt_1")
	do(t, http.MethodGet, base+"/a?record=1", "")
	if v := view(t, base+"/a"); v.Received != 2 {
		t.Errorf("%d recorded, want 2", v.Received)
	}
}

func TestABrowserGetsAPageAndOthersJSON(t *testing.T) {
	t.Parallel()
	_, base := serve(t, Config{})
	do(t, http.MethodPost, base+"/a/b/c", "hello")
	const browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
	for path, want := range map[string]string{"/": "<h1>Bins</h1>", "/a/b/c": "<h1>a/b/c</h1>", "/never/used": "<h1>never/used</h1>"} {
		page := do(t, http.MethodGet, base+path, "", "Accept", browser)
		if !strings.HasPrefix(page.header.Get("Content-Type"), "text/html") || !strings.Contains(page.body, want) {
			t.Errorf("%s: %s %s", path, page.header.Get("Content-Type"), page.body)
		}
		for _, accept := range []string{"", "*/*", "application/json"} {
			if got := do(t, http.MethodGet, base+path, "", "Accept", accept); got.header.Get("Content-Type") != "application/json" {
				t.Errorf("%s, Accept %q: %s", path, accept, got.header.Get("Content-Type"))
			}
		}
	}
	for _, asset := range []string{"style.css", "common.js", "index.js", "bin.js", "icon.svg"} {
		if got := do(t, http.MethodGet, base+assetPath+asset, ""); got.status != 200 || got.body == "" {
			t.Errorf("%s: %d", asset, got.status)
		}
	}
	for _, missing := range []string{assetPath + "none.js", assetPath + "bin.html", assetPath + "../inbox.go", "/_inbox", "/_inbox/none"} {
		if got := do(t, http.MethodGet, base+missing, ""); got.status != 404 {
			t.Errorf("%s: %d", missing, got.status)
		}
	}
	if got := do(t, http.MethodGet, base+"/healthz", ""); got.status != 200 {
		t.Errorf("/healthz: %d", got.status)
	}
}

func TestEveryResponseIsSafeToOpen(t *testing.T) {
	t.Parallel()
	_, base := serve(t, Config{})
	const evil = `<img src=x onerror="alert(1)"></script><script>alert(2)</script>`
	hook := base + "/" + url.PathEscape(evil)
	if got := do(t, http.MethodPost, hook+"?q="+url.QueryEscape(evil), evil, "X-Evil", evil, "Content-Type", "text/html"); got.status != 200 {
		t.Fatalf("status %d", got.status)
	}
	do(t, http.MethodPost, hook, `{"type":"`+strings.ReplaceAll(evil, `"`, `'`)+`"}`)
	for name, got := range map[string]answer{
		"the page":        do(t, http.MethodGet, hook, "", "Accept", "text/html"),
		"the list's page": do(t, http.MethodGet, base+"/", "", "Accept", "text/html"),
		"the bin":         do(t, http.MethodGet, hook, ""),
		"the list":        do(t, http.MethodGet, base+"/", ""),
		"the exact text":  do(t, http.MethodGet, hook+"?raw=1", ""),
		"an error":        do(t, http.MethodPost, hook+"?status="+url.QueryEscape(evil), ""),
		"another error":   do(t, http.MethodPut, base+"/_inbox/bins/"+url.PathEscape(evil), `{"`+"<img src=x>"+`":1}`),
		"what a hook got": do(t, http.MethodPut, hook, evil),
	} {
		if strings.Contains(got.body, "<img src=x") || strings.Contains(got.body, "<script>") {
			t.Errorf("%s holds markup: %s", name, got.body)
		}
		if got.header.Get("X-Content-Type-Options") != "nosniff" || got.header.Get("X-Frame-Options") != "DENY" {
			t.Errorf("%s: %v", name, got.header)
		}
		policy := got.header.Get("Content-Security-Policy")
		if !strings.Contains(policy, "default-src 'self'") || strings.Contains(policy, "unsafe") || strings.Contains(policy, "data:") {
			t.Errorf("%s: policy %q", name, policy)
		}
	}
	// The policy relies on this: no script or style within a document, and no
	// script that makes markup out of text.
	entries, err := files.ReadDir("page")
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		text, err := files.ReadFile("page/" + entry.Name())
		if err != nil {
			t.Fatal(err)
		}
		for _, bad := range []string{"innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "onclick", "onerror", " style=", "<style", "<script>", "javascript:"} {
			if bytes.Contains(text, []byte(bad)) {
				t.Errorf("%s holds %q", entry.Name(), bad)
			}
		}
		if bytes.Contains(bytes.ReplaceAll(text, []byte("http://www.w3.org/2000/svg"), nil), []byte("https://")) {
			t.Errorf("%s refers to something outside", entry.Name())
		}
	}
}

func TestABinAnswersAsItsURLSays(t *testing.T) {
	t.Parallel()
	_, base := serve(t, Config{})
	for name, c := range map[string]struct {
		query string
		want  []int
	}{
		"nothing":                     {"", []int{200, 200}},
		"a status":                    {"status=503", []int{503, 503, 503}},
		"no content":                  {"status=204", []int{204}},
		"failures":                    {"failures=2", []int{500, 500, 200, 200}},
		"failures with a status":      {"failures=1&status=429", []int{429, 200, 200}},
		"a status below":              {"status=199", []int{400}},
		"a status above":              {"status=600", []int{400}},
		"a status that is no number":  {"status=abc", []int{400}},
		"failures below":              {"failures=-1", []int{400}},
		"a delay without unit":        {"delay=2", []int{400}},
		"a delay that is too long":    {"delay=2h", []int{400}},
		"hang that is neither":        {"hang=perhaps", []int{400}},
		"a secret that is none":       {"secret=abc", []int{400}},
		"a Retry-After that is large": {"retryAfter=86401", []int{400}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bin := base + "/" + url.PathEscape(name)
			for n, want := range c.want {
				if got := do(t, http.MethodPost, bin+"?"+c.query, "a"); got.status != want {
					t.Errorf("request %d: %d, want %d", n+1, got.status, want)
				}
			}
		})
	}
	got := do(t, http.MethodPost, base+"/r?status=429&retryAfter=30", "")
	if got.header.Get("Retry-After") != "30" {
		t.Errorf("Retry-After %q", got.header.Get("Retry-After"))
	}
}

func TestABinAnswersAsConfigured(t *testing.T) {
	t.Parallel()
	_, base := serve(t, Config{})
	control := base + "/_inbox/bins/team/bin"
	if got := do(t, http.MethodPut, control, `{"status":503,"failures":2,"retryAfter":7}`); got.status != 200 {
		t.Fatalf("PUT: %d %s", got.status, got.body)
	}
	hook := base + "/team/bin"
	for n, want := range []int{503, 503, 200} {
		if got := do(t, http.MethodPost, hook, ""); got.status != want || (got.header.Get("Retry-After") == "7") != (want == 503) {
			t.Errorf("request %d: %d %v", n+1, got.status, got.header)
		}
	}
	// The URL's parameters override the configured settings, for its own request.
	if got := do(t, http.MethodPost, hook+"?status=418&failures=0", ""); got.status != 418 {
		t.Errorf("status %d", got.status)
	}
	// Configuring again restarts the count.
	do(t, http.MethodPut, control, `{"failures":1}`)
	for n, want := range []int{500, 200} {
		if got := do(t, http.MethodPost, hook, ""); got.status != want {
			t.Errorf("request %d: %d, want %d", n+1, got.status, want)
		}
	}
	v := view(t, control)
	if v.Settings.Failures != 1 || v.Settings.Status != 0 || v.Received != 6 {
		t.Errorf("%+v", v)
	}
	for _, bad := range []string{`{"status":1}`, `{"stauts":500}`, `{"delay":5}`, `{"delay":"1h"}`, `[]`, ``, `{"secret":"abc"}`, `{"failures":1001}`} {
		if got := do(t, http.MethodPut, control, bad); got.status != 400 || got.header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("PUT %s: %d %s", bad, got.status, got.body)
		}
	}
}

func TestBinsCanBeClearedAndDeleted(t *testing.T) {
	t.Parallel()
	_, base := serve(t, Config{})
	control := base + "/_inbox/bins/a"
	do(t, http.MethodPut, control, `{"status":201}`)
	do(t, http.MethodPost, base+"/a", "")
	before := view(t, control)

	if got := do(t, http.MethodDelete, control+"/requests", ""); got.status != 204 {
		t.Errorf("clear: %d", got.status)
	}
	v := view(t, control)
	if v.Received != 0 || len(v.Requests) != 0 || v.Settings.Status != 201 || v.Generation == before.Generation {
		t.Errorf("cleared: %+v", v)
	}
	do(t, http.MethodPost, base+"/a", "")
	if got := do(t, http.MethodDelete, control, ""); got.status != 204 {
		t.Errorf("delete: %d", got.status)
	}
	if v := view(t, control); v.Received != 0 || v.Settings.Status != 0 {
		t.Errorf("deleted: %+v", v)
	}
	for _, c := range []struct{ method, path string }{
		{"POST", "/bins/a"}, {"PUT", "/bins"}, {"PUT", "/bins/a/requests"}, {"DELETE", "/changes"}, {"POST", "/bins/a/changes"},
	} {
		if got := do(t, c.method, base+"/_inbox"+c.path, "{}"); got.status != 405 {
			t.Errorf("%s %s: %d", c.method, c.path, got.status)
		}
	}
}

func TestOtherSitesCannotChangeABin(t *testing.T) {
	t.Parallel()
	_, base := serve(t, Config{})
	do(t, http.MethodPost, base+"/a", "")
	for _, c := range []struct{ method, path string }{{"DELETE", "/bins/a"}, {"DELETE", "/bins/a/requests"}, {"PUT", "/bins/a"}} {
		got := do(t, c.method, base+"/_inbox"+c.path, `{"status":500}`, "Sec-Fetch-Site", "cross-site", "Origin", "https://evil.example")
		if got.status != 403 {
			t.Errorf("%s %s: %d", c.method, c.path, got.status)
		}
	}
	if v := view(t, base+"/a"); v.Received != 1 || v.Settings.Status != 0 {
		t.Errorf("changed: %+v", v)
	}
}

func TestSignaturesAreVerified(t *testing.T) {
	t.Parallel()
	_, base := serve(t, Config{})
	secret, other := webhook.NewSecret(), webhook.NewSecret()
	do(t, http.MethodPut, base+"/_inbox/bins/told", `{"secret":"`+secret.Reveal()+`"}`)
	do(t, http.MethodPut, base+"/_inbox/bins/told", `{"status":202}`) // keeps it

	const body = `{"id":"evt_1"}`
	send := func(path string, with webhook.Secret, at time.Time) {
		do(t, http.MethodPost, base+path, body, webhook.HeaderID, "evt_1", webhook.HeaderTimestamp, webhook.Timestamp(at),
			webhook.HeaderSignature, webhook.Sign("evt_1", at, []byte(body), with))
	}
	now := time.Now()
	for n, c := range []struct {
		path, state, reason string
		send                func(path string)
	}{
		{"/told", "valid", "", func(p string) { send(p, secret, now) }},
		{"/told", "invalid", "matches no secret", func(p string) { send(p, other, now) }},
		{"/told", "invalid", "too old", func(p string) { send(p, secret, now.Add(-time.Hour)) }},
		{"/told", "unsigned", "", func(p string) { do(t, http.MethodPost, base+p, body) }},
		{"/plain", "unchecked", "no secret", func(p string) { send(p, secret, now) }},
		{"/url?secret=" + url.QueryEscape(secret.Reveal()), "valid", "", func(p string) { send(p, secret, now) }},
		{"/url?secret=" + url.QueryEscape(secret.Reveal()), "invalid", "", func(p string) { send(p, other, now) }},
	} {
		c.send(c.path)
		path, _, _ := strings.Cut(c.path, "?")
		got := view(t, base+path).Requests[0].Signature
		if got.State != c.state || !strings.Contains(got.Reason, c.reason) {
			t.Errorf("case %d: %+v, want %s", n, got, c.state)
		}
	}
	for _, path := range []string{"/told", "/url", "/url?raw=1", "/_inbox/bins/told"} {
		got := do(t, http.MethodGet, base+path, "")
		if strings.Contains(got.body, strings.TrimPrefix(secret.Reveal(), "whsec_")) ||
			strings.Contains(got.body, url.QueryEscape(secret.Reveal())) {
			t.Errorf("%s shows the secret: %s", path, got.body)
		}
	}
	if v := view(t, base+"/told"); !v.Settings.HasSecret || v.Settings.Status != 202 {
		t.Errorf("settings %+v", v.Settings)
	}
	do(t, http.MethodPut, base+"/_inbox/bins/told", `{"secret":""}`)
	if v := view(t, base+"/told"); v.Settings.HasSecret {
		t.Error("the secret is still there")
	}
}

func TestBodiesAreShownUnchanged(t *testing.T) {
	t.Parallel()
	_, base := serve(t, Config{})
	for body, want := range map[string]Recorded{
		"":           {},
		"plain text": {Body: "plain text"},
		"a\xffb":     {Body: "Yf9i", BodyEncoding: "base64"},
		"{\"n\": 1.0,\n \"m\": 12345678901234567890}": {Body: "{\"n\": 1.0,\n \"m\": 12345678901234567890}"},
		"{broken":                    {Body: "{broken"},
		strings.Repeat("a", 300<<10): {Body: strings.Repeat("a", 256<<10), Truncated: true},
	} {
		do(t, http.MethodPost, base+"/a", body)
		got := view(t, base+"/a?raw=1").Requests[0]
		if got.Body != want.Body || got.BodyEncoding != want.BodyEncoding || got.Truncated != want.Truncated ||
			got.Bytes != len(body) || got.JSON != nil {
			t.Errorf("%.20q: %d bytes %q, truncated %v, of %d", body, len(got.Body), got.BodyEncoding, got.Truncated, got.Bytes)
		}
	}
}

func TestAHangingRequestIsHeldUntilTheClientDisconnects(t *testing.T) {
	t.Parallel()
	i, base := serve(t, Config{})
	ctx, cancel := context.WithCancel(t.Context())
	watcher, _ := i.store.watch("a")
	done := make(chan error, 1)
	go func() {
		request, err := http.NewRequestWithContext(ctx, http.MethodPost, base+"/a?hang=true", strings.NewReader("x"))
		if err == nil {
			var response *http.Response
			if response, err = http.DefaultTransport.RoundTrip(request); err == nil {
				err = response.Body.Close()
			}
		}
		done <- err
	}()
	<-watcher.changed // it is recorded at once
	select {
	case err := <-done:
		t.Fatalf("it was answered: %v", err)
	default:
	}
	if got := view(t, base+"/a").Requests[0].Answer; !got.Hang {
		t.Errorf("answer %+v", got)
	}
	cancel()
	if err := <-done; err == nil {
		t.Error("it was answered")
	}
}

func TestAHangingRequestIsNotHeldForever(t *testing.T) {
	t.Parallel()
	_, base := serve(t, Config{MaxHang: time.Millisecond})
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, base+"/a?hang=true", strings.NewReader("x"))
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultTransport.RoundTrip(request)
	if err == nil {
		_ = response.Body.Close()
		t.Errorf("it was answered with %d", response.StatusCode)
	}
}

func TestCloseEndsHangingRequests(t *testing.T) {
	t.Parallel()
	i := New(Config{})
	server := httptest.NewUnstartedServer(i)
	server.Config.RegisterOnShutdown(i.Close)
	server.Start()
	defer server.Close()
	watcher, _ := i.store.watch("a")
	var wg sync.WaitGroup
	for _, path := range []string{"/a?hang=true", "/a?delay=60s"} {
		wg.Go(func() {
			request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL+path, strings.NewReader("x"))
			if err != nil {
				t.Error(err)
				return
			}
			if response, err := http.DefaultTransport.RoundTrip(request); err == nil {
				_ = response.Body.Close()
			}
		})
		<-watcher.changed
	}
	if err := server.Config.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	wg.Wait()
}

func TestADelayPrecedesTheResponse(t *testing.T) {
	t.Parallel()
	_, base := serve(t, Config{})
	start := time.Now()
	got := do(t, http.MethodPost, base+"/a?delay=50ms&status=201", "")
	if took := time.Since(start); got.status != 201 || took < 50*time.Millisecond {
		t.Errorf("status %d after %v", got.status, took)
	}
}

func TestChangesAreStreamed(t *testing.T) {
	t.Parallel()
	_, base := serve(t, Config{})
	for _, path := range []string{"/_inbox/bins/a/changes", "/_inbox/changes"} {
		ctx, cancel := context.WithCancel(t.Context())
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, base+path, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		response, err := http.DefaultTransport.RoundTrip(request)
		if err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(response.Body)
		next := func() {
			t.Helper()
			for lines.Scan() {
				if lines.Text() == "event: changed" {
					return
				}
			}
			t.Fatalf("the stream ended: %v", lines.Err())
		}
		next() // at the start
		do(t, http.MethodPost, base+"/a", "")
		next()
		do(t, http.MethodDelete, base+"/_inbox/bins/a", "")
		next()
		cancel()
		_ = response.Body.Close()
	}
}

func TestStreamsAreBounded(t *testing.T) {
	t.Parallel()
	i, base := serve(t, Config{})
	var all []*watcher
	for {
		w, ok := i.store.watch("a")
		if !ok {
			break
		}
		all = append(all, w)
	}
	if len(all) != maxWatchers {
		t.Errorf("%d watchers", len(all))
	}
	if got := do(t, http.MethodGet, base+"/_inbox/changes", ""); got.status != 503 {
		t.Errorf("status %d", got.status)
	}
	for _, w := range all {
		i.store.unwatch(w)
	}
	if _, ok := i.store.watch("a"); !ok {
		t.Error("no room after all watchers have gone")
	}
}

func TestABinDropsItsOldestRequests(t *testing.T) {
	t.Parallel()
	_, base := serve(t, Config{})
	for n := range maxRequests + 5 {
		do(t, http.MethodPost, base+"/a", fmt.Sprint(n))
	}
	v := view(t, base+"/a")
	if v.Received != maxRequests+5 || len(v.Requests) != maxRequests ||
		v.Requests[0].Number != maxRequests+5 || v.Requests[maxRequests-1].Number != 6 {
		t.Errorf("received %d, kept %d, from %d", v.Received, len(v.Requests), v.Requests[len(v.Requests)-1].Number)
	}
	if newer := view(t, base+fmt.Sprintf("/a?after=%d", maxRequests+3)); len(newer.Requests) != 2 {
		t.Errorf("%d after the last but two", len(newer.Requests))
	}
}

func TestMemoryIsBounded(t *testing.T) {
	t.Parallel()
	s := newStore()
	none := func(*Settings) {}
	for n := range maxBins + 100 {
		s.add(fmt.Sprint("bin-", n), &Recorded{Body: "a"}, none)
	}
	if len(s.bins) != maxBins || s.recent.Len() != maxBins {
		t.Errorf("%d bins", len(s.bins))
	}
	if v := s.view("bin-0", 0); v.Received != 0 {
		t.Error("the oldest bin is still there")
	}
	large := strings.Repeat("a", maxKeptBody)
	for n := range 2000 {
		s.add(fmt.Sprint("bin-", n%40), &Recorded{Body: large}, none)
	}
	kept := 0
	for _, element := range s.bins {
		for _, r := range binOf(element).requests {
			kept += r.size()
		}
	}
	if kept != s.total || s.total > maxTotal || s.total < maxTotal/2 {
		t.Errorf("%d bytes kept, %d counted, %d allowed", kept, s.total, maxTotal)
	}
	// The newest request is never dropped.
	s.add("new", &Recorded{Body: large}, none)
	if v := s.view("new", 0); len(v.Requests) != 1 {
		t.Error("the newest request was dropped")
	}
	for name := range s.bins {
		s.delete(name)
	}
	if s.total != 0 || s.recent.Len() != 0 {
		t.Errorf("%d bytes in %d bins after all were deleted", s.total, s.recent.Len())
	}
}

func TestNamesOfBins(t *testing.T) {
	t.Parallel()
	_, base := serve(t, Config{})
	for path, want := range map[string]string{
		"/a/": "a", "//a//b//": "a//b", "/a%20b": "a b", "/%C3%BC": "ü", "/a%2Fb": "a/b", "/..": "..", "/a/../b": "a/../b",
	} {
		if got := do(t, http.MethodPost, base+path, ""); got.status != 200 {
			t.Errorf("%s: %d", path, got.status)
			continue
		}
		if v := view(t, base+"/_inbox/bins/"+url.PathEscape(want)); v.Received == 0 {
			t.Errorf("%s is not the bin %q", path, want)
		}
	}
	for _, path := range []string{"/%ff", "/a%00b", "/" + strings.Repeat("a", 201), "//"} {
		if got := do(t, http.MethodPost, base+path, ""); got.status != 404 {
			t.Errorf("%s: %d", path, got.status)
		}
	}
	if got := do(t, http.MethodPost, base+"/", ""); got.status != 405 {
		t.Errorf("POST /: %d", got.status)
	}
}

func TestRecordingIsLoggedWithoutContent(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	i := New(Config{Logger: slog.New(slog.NewJSONHandler(&out, nil))})
	request := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/a?secret="+url.QueryEscape(webhook.NewSecret().Reveal()), strings.NewReader("the body"))
	i.ServeHTTP(httptest.NewRecorder(), request)
	if text := out.String(); !strings.Contains(text, `"bin":"a"`) || strings.Contains(text, "the body") || strings.Contains(text, "whsec_") {
		t.Errorf("logged %s", text)
	}
}
