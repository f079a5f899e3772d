package faults_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"posthorn/events/webhook"
	"posthorn/services/lab/faults"
)

func lines[T any](t *testing.T, path string) []T {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var all []T
	decoder := json.NewDecoder(bytes.NewReader(content))
	for decoder.More() {
		var one T
		if err := decoder.Decode(&one); err != nil {
			t.Fatal(err)
		}
		all = append(all, one)
	}
	return all
}

func TestTheSinkWritesDownWhatComesAndWhatItAnswered(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "sink")
	sink, err := faults.NewSink(t.Context(), path, 1)
	if err != nil {
		t.Fatal(err)
	}
	secret := webhook.NewSecret()
	if err := sink.Trust("a", secret.Reveal()); err != nil {
		t.Fatal(err)
	}
	send := func(signed webhook.Secret) (int, error) {
		body := []byte(`{"id":"1","type":"T","data":{"n":1}}`)
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, sink.URL("a"), bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		now := time.Now()
		request.Header.Set("Webhook-Id", "1")
		request.Header.Set("Webhook-Timestamp", webhook.Timestamp(now))
		request.Header.Set("Webhook-Signature", webhook.Sign("1", now, body, signed))
		response, err := http.DefaultTransport.RoundTrip(request)
		if err != nil {
			return 0, err
		}
		return response.StatusCode, response.Body.Close()
	}
	var want []int
	for mode, status := range map[faults.Mode]int{faults.Well: 200, faults.Failing: 500, faults.Throttling: 429, faults.Redirect: 302, faults.Gone: 410} {
		sink.Behave("a", mode)
		if got, err := send(secret); err != nil || got != status {
			t.Errorf("%s answers %d (%v), want %d", mode, got, err, status)
		}
		want = append(want, status)
	}
	sink.Behave("a", faults.ResetAfter)
	if got, err := send(secret); err == nil {
		t.Errorf("a line that is cut answers %d", got)
	}
	sink.Behave("a", faults.Well)
	if _, err := send(webhook.NewSecret()); err != nil {
		t.Error(err)
	}
	if err := sink.Close(); err != nil {
		t.Fatal(err)
	}
	arrivals := lines[faults.Arrival](t, path)
	if len(arrivals) != len(want)+2 {
		t.Fatalf("%d arrivals on file, want %d", len(arrivals), len(want)+2)
	}
	for i, status := range append(want, 0, 200) {
		a := arrivals[i]
		if a.Status != status || a.ID != "1" || a.Body != "1" || a.Type != "T" || a.Subscriber != "a" || a.Signed != (i <= len(want)) {
			t.Errorf("arrival %d is %+v, want status %d", i, a, status)
		}
	}
}

func TestTheProducerWritesDownWhatWasAcceptedAndRepeatsWhatWasNot(t *testing.T) {
	t.Parallel()
	var tried atomic.Int64
	seen := make(chan string, 1000)
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var event struct {
			ID string `json:"id"`
		}
		if err := json.NewDecoder(r.Body).Decode(&event); err != nil {
			t.Error(err)
		}
		seen <- event.ID
		w.WriteHeader(http.StatusAccepted)
		_, _ = fmt.Fprint(w, `{"position":7}`)
	}))
	t.Cleanup(api.Close)
	flaky := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if tried.Add(1) == 1 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		api.Config.Handler.ServeHTTP(w, r)
	}))
	t.Cleanup(flaky.Close)
	path := filepath.Join(t.TempDir(), "producer")
	// So slow that no two requests are in flight at once.
	p, err := faults.NewProducer(flaky.URL, path, "p-", 5, "T")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- p.Run(ctx) }()
	if id := <-seen; id != "p-1" {
		t.Errorf("first accepted is %s, want p-1, sent again", id)
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	all := lines[faults.Accepted](t, path)
	if len(all) < 2 || all[0].OK || all[0].ID != "p-1" {
		t.Fatalf("on file: %+v", all)
	}
	var accepted int
	for _, a := range all {
		if a.OK {
			accepted++
			if a.Position != 7 {
				t.Errorf("position %d, want 7", a.Position)
			}
		}
	}
	if accepted != p.Accepted() || 2*accepted != len(all) {
		t.Errorf("%d accepted on file of %d lines, %d counted", accepted, len(all), p.Accepted())
	}
}
