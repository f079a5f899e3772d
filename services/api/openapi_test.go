package api_test

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"posthorn/services/api"
)

func TestTheDocumentHasEveryRouteAndNoOther(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	var document struct {
		OpenAPI string
		Paths   map[string]map[string]struct {
			OperationID string
			Summary     string
			Parameters  []struct{ Name, In string }
			RequestBody *struct{ Content map[string]any }
			Responses   map[string]any
		}
		Components struct{ Schemas map[string]any }
	}
	r := s.do("GET", "/openapi.json", "").want(200)
	r.decode(&document)
	if !strings.HasPrefix(document.OpenAPI, "3.1") {
		t.Errorf("version %q", document.OpenAPI)
	}
	var documented []string
	seen := map[string]bool{}
	for path, methods := range document.Paths {
		for method, op := range methods {
			documented = append(documented, strings.ToUpper(method)+" "+path)
			if op.Summary == "" || op.OperationID == "" || seen[op.OperationID] || len(op.Responses) == 0 {
				t.Errorf("%s %s is not described: %+v", method, path, op)
			}
			seen[op.OperationID] = true
			for name := range strings.SplitSeq(path, "/") {
				if inner, ok := strings.CutPrefix(name, "{"); ok {
					if !slices.ContainsFunc(op.Parameters, func(p struct{ Name, In string }) bool {
						return p.In == "path" && p.Name == strings.TrimSuffix(inner, "}")
					}) {
						t.Errorf("%s %s does not describe {%s", method, path, inner)
					}
				}
			}
			if (method == "post" && strings.Count(path, "/") == 1 || method == "put" || method == "patch") && op.RequestBody == nil {
				t.Errorf("%s %s does not describe its body", method, path)
			}
		}
	}
	routes, err := s.api.Routes()
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(documented)
	slices.Sort(routes)
	if !slices.Equal(documented, routes) {
		t.Errorf("documented %q\nrouted %q", documented, routes)
	}
	// Every reference has a target.
	for ref := range strings.SplitSeq(string(r.Body), `"$ref":"#/components/schemas/`) {
		name, _, _ := strings.Cut(ref, `"`)
		if _, ok := document.Components.Schemas[name]; !ok && !strings.HasPrefix(ref, "{") {
			t.Errorf("%q is referenced but missing", name)
		}
	}
	if !json.Valid(r.Body) {
		t.Error("the document is not JSON")
	}
}

func TestThePageOfTheDocumentLoadsNothingFromElsewhere(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	page := s.do("GET", "/docs", "").want(200)
	for _, r := range []reply{page, s.do("GET", "/docs/style.css", "").want(200), s.do("GET", "/docs/script.js", "").want(200)} {
		for _, elsewhere := range []string{"http://", "https://", "//unpkg", "innerHTML", "eval("} {
			if strings.Contains(string(r.Body), elsewhere) {
				t.Errorf("the page holds %q", elsewhere)
			}
		}
		if csp := r.Header.Get("Content-Security-Policy"); !strings.Contains(csp, "default-src 'none'") || strings.Contains(csp, "unsafe") {
			t.Errorf("policy %q", csp)
		}
	}
	if !strings.Contains(string(page.Body), "/docs/script.js") {
		t.Error("the page has no script")
	}
}

func TestWithAKeyEverythingExceptHealthNeedsIt(t *testing.T) {
	t.Parallel()
	// Enough time passes between two requests that none is one too many.
	var passed atomic.Int64
	s := newServer(t, func(c *api.Config) {
		c.AdminKey = "0123456789abcdef"
		c.Now = func() time.Time { return time.Unix(passed.Add(3600), 0) }
	})
	routes, err := s.api.Routes()
	if err != nil {
		t.Fatal(err)
	}
	for _, route := range append(routes, "GET /nothing", "OPTIONS /events") {
		method, path, _ := strings.Cut(route, " ")
		for _, header := range []string{"", "Bearer", "Bearer ", "Bearer wrong", "Bearer 0123456789abcde", "Basic 0123456789abcdef", "0123456789abcdef"} {
			r := s.do(method, path, "", "Authorization", header)
			if path == "/healthz" || path == "/readyz" {
				r.want(200)
			} else if r.Status != http.StatusUnauthorized || !strings.HasPrefix(r.Header.Get("WWW-Authenticate"), "Bearer") {
				t.Errorf("%s with %q: %d %s", route, header, r.Status, r.Body)
			}
		}
	}
	s.do("GET", "/events", "", "Authorization", "bearer 0123456789abcdef").want(200)
	s.do("POST", "/like/1", "", "Authorization", "Bearer 0123456789abcdef").want(202)
}

func TestOpenModeIsForLoopbackUnlessAllowed(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	for _, c := range []struct {
		addr, key string
		open, ok  bool
	}{
		{"127.0.0.1:3000", "", false, true},
		{"localhost:3000", "", false, true},
		{"[::1]:3000", "", false, true},
		{"127.8.8.8:3000", "", false, true},
		{":3000", "", false, false},
		{"0.0.0.0:3000", "", false, false},
		{"[::]:3000", "", false, false},
		{"192.168.1.2:3000", "", false, false},
		{"example.com:3000", "", false, false},
		{"localhost.example.com:3000", "", false, false},
		{"0.0.0.0:3000", "0123456789abcdef", false, true},
		{"0.0.0.0:3000", "x", false, false},
		{"127.0.0.1:3000", "                    ", false, false},
		{"0.0.0.0:3000", "", true, true},
	} {
		cfg := s.cfg
		cfg.Addr, cfg.AdminKey, cfg.Open = c.addr, c.key, c.open
		if err := cfg.Validate(); (err == nil) != c.ok {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

func TestReadyMeansMigrated(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.do("GET", "/readyz", "").want(200)
	if _, err := s.db.ExecContext(t.Context(), `DELETE FROM posthorn.goose_db_version WHERE version_id = (SELECT max(version_id) FROM posthorn.goose_db_version)`); err != nil {
		t.Fatal(err)
	}
	if r := s.do("GET", "/readyz", ""); r.Status != 503 || !strings.Contains(string(r.Body), "not migrated") {
		t.Errorf("%d %s", r.Status, r.Body)
	}
	if _, err := s.db.ExecContext(t.Context(), `DROP TABLE posthorn.goose_db_version`); err != nil {
		t.Fatal(err)
	}
	if r := s.do("GET", "/readyz", ""); r.Status != 503 || !strings.Contains(string(r.Body), "not migrated") {
		t.Errorf("%d %s", r.Status, r.Body)
	}
}

func TestMetricsCountRequestsByRoute(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.do("GET", "/like/17", "").want(202)
	s.do("GET", "/photos/17", "").want(200)
	s.do("GET", "/nothing/17", "").want(404)
	s.do("BREW", "/like/17", "").want(405)
	text := string(s.do("GET", "/metrics", "").want(200).Body)
	for _, line := range []string{
		`posthorn_api_requests_total{method="GET",route="/like/{photoId}",status="202"} 1`,
		`posthorn_api_requests_total{method="GET",route="/photos/{photoId}",status="200"} 1`,
		`posthorn_api_events_total{outcome="appended"} 1`,
		`posthorn_api_commit_events_count{group="plain"} 1`,
		`method="other"`,
	} {
		if !strings.Contains(text, line) {
			t.Errorf("metrics lack %s", line)
		}
	}
	if strings.Contains(text, "17") && strings.Contains(text, "/nothing") {
		t.Error("metrics contain paths, which clients choose")
	}
}

func TestResponsesCarryARequestIDAndSafeHeaders(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	r := s.do("GET", "/events", "", "X-Request-Id", "mine-1")
	if r.Header.Get("X-Request-Id") != "mine-1" || r.Header.Get("X-Content-Type-Options") != "nosniff" || r.Header.Get("Content-Security-Policy") == "" {
		t.Errorf("headers %v", r.Header)
	}
	if got := s.do("GET", "/events", "", "X-Request-Id", strings.Repeat("x", 65)).Header.Get("X-Request-Id"); len(got) != 24 {
		t.Errorf("request id %q", got)
	}
}
