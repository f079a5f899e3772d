package main

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"posthorn/services/internal/process"
	"posthorn/services/internal/readiness"
)

// listen adds listeners to a program, and runs them until the test ends.
func listen(t *testing.T, add func(ctx context.Context, p *program) error) {
	t.Helper()
	p := newProgram(&env{out: io.Discard, errOut: io.Discard, logger: slog.New(slog.DiscardHandler)})
	p.readiness.Add("relay", func(context.Context) readiness.Report {
		return readiness.Report{Problems: []string{"RabbitMQ cannot be reached"}, Warnings: []string{"2 records are in quarantine"}}
	})
	if err := add(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- p.run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := process.Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

func get(t *testing.T, method, url, host string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = host
	req.Header.Set("Origin", "http://"+host)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func TestEveryListenerAnswersOnlyToItsNames(t *testing.T) {
	t.Parallel()
	inbox, metrics, profiles := freePort(t), freePort(t), freePort(t)
	listen(t, func(ctx context.Context, p *program) error {
		named := hostFlags{Hosts: []string{"box.example"}}
		if err := p.addInbox(ctx, inbox, named); err != nil {
			return err
		}
		return p.addMetrics(ctx, metricsFlags{profileFlags: profileFlags{hostFlags: named, PprofAddr: profiles}, MetricsAddr: metrics})
	})
	for url, status := range map[string]int{
		inbox + "/": 200, inbox + "/a": 200, inbox + "/_inbox/bins": 200, inbox + "/healthz": 200,
		metrics + "/metrics": 200, metrics + "/healthz": 200, metrics + "/readyz": 503,
		profiles + "/debug/pprof/": 200,
	} {
		for _, method := range []string{http.MethodGet, http.MethodHead} {
			for _, host := range []string{url[:strings.IndexByte(url, '/')], "localhost:1", "x.localhost", "box.example"} {
				if got, body := get(t, method, "http://"+url, host); got != status || method == http.MethodHead && body != "" {
					t.Errorf("%s %s as %s: %d %s", method, url, host, got, body)
				}
			}
			if got, body := get(t, method, "http://"+url, "evil.example:3000"); got != http.StatusMisdirectedRequest {
				t.Errorf("%s %s by a foreign name: %d %s", method, url, got, body)
			}
		}
	}
	if got, body := get(t, http.MethodPost, "http://"+inbox+"/a", "evil.example"); got != http.StatusMisdirectedRequest {
		t.Errorf("a hook by a foreign name: %d %s", got, body)
	}
}

func TestReadyzOfAPartSaysWhatItCannotDo(t *testing.T) {
	t.Parallel()
	addr := freePort(t)
	listen(t, func(ctx context.Context, p *program) error { return p.addMetrics(ctx, metricsFlags{MetricsAddr: addr}) })
	status, body := get(t, http.MethodGet, "http://"+addr+"/readyz", addr)
	var state readiness.State
	if err := json.Unmarshal([]byte(body), &state); err != nil {
		t.Fatal(err)
	}
	part := state.Parts["relay"]
	if status != 503 || state.Reason != "relay: RabbitMQ cannot be reached" || len(part.Warnings) != 1 {
		t.Errorf("%d %s", status, body)
	}
}
