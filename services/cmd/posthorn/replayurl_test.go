package main

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"posthorn/events"
	"posthorn/events/webhook"
)

// hook is a receiver on a developer's machine.
type hook struct {
	*httptest.Server
	mu      sync.Mutex
	headers []http.Header
	bodies  []string
	at      []time.Time
}

func newHook(t *testing.T, status func(n int) int) *hook {
	t.Helper()
	h := &hook{}
	h.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		h.headers, h.bodies, h.at = append(h.headers, r.Header), append(h.bodies, string(body)), append(h.at, time.Now())
		if status != nil {
			w.WriteHeader(status(len(h.bodies)))
		}
	}))
	t.Cleanup(h.Close)
	return h
}

// got returns the ids that came since the last call, after the checks that
// receivers make.
func (h *hook) got(t *testing.T, secret string) (ids []string) {
	t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	key, err := webhook.ParseSecret(secret)
	if err != nil {
		t.Fatal(err)
	}
	for i, header := range h.headers {
		if err := webhook.Verify(header, []byte(h.bodies[i]), 0, key); err != nil {
			t.Errorf("request %d: %v", i, err)
		}
		ids = append(ids, header.Get("webhook-id"))
	}
	h.headers, h.bodies, h.at = nil, nil, nil
	return ids
}

func TestAReplayToAURLIsSignedAndInOrder(t *testing.T) {
	t.Parallel()
	const trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	var batch []events.Event
	for i := range 20 {
		batch = append(batch, events.Event{
			Type: []string{"photo.liked", "order.paid"}[i%2], ID: fmt.Sprintf("e%d", i+1), Subject: fmt.Sprintf("s/%d", i/10), Data: []byte(`{"n":  1}`),
			Metadata: map[string]string{"traceparent": trace, "other": "private"},
		})
	}
	db, flag := aLog(t, batch...)
	h := newHook(t, nil)
	secret := webhook.NewSecret().Reveal()

	code, out, errOut := command(t, "replay", flag, "--to-url", h.URL+"/hook", "--secret", secret)
	if lines := strings.Split(strings.TrimSpace(out), "\n"); code != 0 || len(lines) != 20 || !strings.HasPrefix(lines[0], "1\te1\tphoto.liked\t200\t") {
		t.Errorf("%d %s %s", code, out, errOut)
	}
	if strings.Contains(out+errOut, "whsec_") {
		t.Errorf("a secret that was given is shown: %s", errOut)
	}
	h.mu.Lock()
	first, body := h.headers[0], h.bodies[0]
	h.mu.Unlock()
	if first.Get("Content-Type") != "application/json" || first.Get("Traceparent") != trace || first.Get("Other") != "" {
		t.Errorf("headers %v", first)
	}
	if !strings.Contains(body, `"data":{"n":  1}`) || !strings.Contains(body, `"id":"e1"`) {
		t.Errorf("body %s", body)
	}
	want := make([]string, 20)
	for i := range want {
		want[i] = fmt.Sprintf("e%d", i+1)
	}
	if diff := cmp.Diff(want, h.got(t, secret)); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}

	// A range, signed with a generated secret.
	code, _, errOut = command(t, "replay", flag, "--to-url", h.URL, "--type", "photo.*", "--from", "3", "--to", "12", "--subject", "s/0")
	_, made, _ := strings.Cut(errOut, "signed with ")
	made, _, _ = strings.Cut(made, "\n")
	if diff := cmp.Diff([]string{"e3", "e5", "e7", "e9"}, h.got(t, made)); code != 0 || diff != "" {
		t.Errorf("%d %s: events (-want +got):\n%s", code, errOut, diff)
	}
	if code, _, errOut = command(t, "replay", flag, "--to-url", h.URL, "--event", "e4,e2", "--secret", secret); code != 0 {
		t.Error(errOut)
	}
	if diff := cmp.Diff([]string{"e2", "e4"}, h.got(t, secret)); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	future := time.Now().Add(time.Hour).UTC().Format(time.RFC3339)
	if code, _, errOut = command(t, "replay", flag, "--to-url", h.URL, "--from", future, "--secret", secret); code != 0 || !strings.HasPrefix(errOut, "0 events") {
		t.Error(code, errOut)
	}
	code, out, _ = command(t, "replay", flag, "--to-url", h.URL, "--dry-run", "--type", "order.paid")
	if code != 0 || !strings.HasPrefix(out, "10 events. Nothing was sent.\n2\te2\torder.paid\t\"s/0\"\n") || len(h.got(t, secret)) != 0 {
		t.Errorf("dry run: %d %s", code, out)
	}
	var deliveries int
	if err := db.QueryRowContext(t.Context(), `SELECT count(*) FROM posthorn.deliveries`).Scan(&deliveries); err != nil || deliveries != 0 {
		t.Errorf("%d deliveries, %v, want none", deliveries, err)
	}
}

func TestAReplayToAURLStopsOrContinuesWhenARequestFails(t *testing.T) {
	t.Parallel()
	var batch []events.Event
	for i := range 5 {
		batch = append(batch, events.Event{Type: "E", ID: fmt.Sprintf("e%d", i+1)})
	}
	_, flag := aLog(t, batch...)
	h := newHook(t, func(n int) int {
		if n == 3 {
			return http.StatusTeapot
		}
		return http.StatusNoContent
	})
	secret := webhook.NewSecret().Reveal()
	to := []string{"replay", flag, "--to-url", h.URL, "--secret", secret}

	code, out, errOut := command(t, to...)
	if code != 3 || len(h.got(t, secret)) != 3 || !strings.Contains(out, "status 418") || !strings.Contains(errOut, "--from 3,") {
		t.Errorf("%d %s %s, want it stopped at the third", code, out, errOut)
	}
	code, out, errOut = command(t, append(to, "--keep-going")...)
	if code != 3 || len(h.got(t, secret)) != 5 || strings.Count(out, "\n") != 5 || !strings.HasPrefix(errOut, "5 events sent, 1 of them") {
		t.Errorf("%d %s %s, want it to continue", code, out, errOut)
	}
	h.Close()
	code, out, _ = command(t, to...)
	if code != 3 || !strings.Contains(out, "connect: ") {
		t.Errorf("no listener: %d %s", code, out)
	}
	for _, wrong := range [][]string{
		{"--subscription", "sub_x"}, {"--wait"}, {"--only-dead"}, {"--no-filter"}, {"--secret", "x"}, {"--rate=-1"}, {"--timeout", "0s"}, {"--type", "a..b"},
	} {
		if code, _, _ := command(t, append(to, wrong...)...); code != 1 {
			t.Errorf("%v: %d, want 1", wrong, code)
		}
	}
	if code, _, _ := command(t, "replay", flag, "--to-url", "ftp://localhost"); code != 1 {
		t.Errorf("an invalid URL: %d, want 1", code)
	}
}

func TestAReplayToAURLKeepsItsRate(t *testing.T) {
	t.Parallel()
	_, flag := aLog(t, thirty()...)
	h := newHook(t, nil)
	secret := webhook.NewSecret().Reveal()
	if code, _, errOut := command(t, "replay", flag, "--to-url", h.URL, "--secret", secret, "--rate", "100"); code != 0 {
		t.Fatal(errOut)
	}
	h.mu.Lock()
	took := h.at[len(h.at)-1].Sub(h.at[0])
	h.mu.Unlock()
	if took < 29*10*time.Millisecond*8/10 {
		t.Errorf("30 events at 100 a second took %v", took)
	}
	if n := len(h.got(t, secret)); n != 30 {
		t.Errorf("%d events", n)
	}
}

func thirty() (batch []events.Event) {
	for range 30 {
		batch = append(batch, events.Event{Type: "E"})
	}
	return batch
}
