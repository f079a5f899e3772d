package e2e_test

import (
	"encoding/json"
	"maps"
	"net/http"
	"os/exec"
	"strings"
	"testing"
	"time"

	"posthorn/events/webhook"
	"posthorn/services/internal/signing"
)

// TestTheSecretKeyCanBeRotatedCompletely rotates from one key to another, with a
// wrong step in between: the failure is reported, nothing is sent to a former
// URL, and nothing is lost.
func TestTheSecretKeyCanBeRotatedCompletely(t *testing.T) {
	t.Parallel()
	s := newSystem(t, "")
	addr := freeAddr(t)
	s.url = "http://" + addr
	former, next := signing.GenerateKey(), signing.GenerateKey()
	env := map[string]string{
		"DATABASE_URL": s.dbURL, "AMQP_URL": s.broker.URL, "HTTP_ADDR": addr, "POSTHORN_ALLOW_NETWORKS": "127.0.0.0/8",
		"POSTHORN_NAMESPACE": s.broker.Namespace,
	}
	with := func(keys string) map[string]string {
		all := maps.Clone(env)
		all["POSTHORN_SECRET_KEY"] = keys
		return all
	}
	secrets := func(keys string, args ...string) (string, int) {
		t.Helper()
		path, err := binary()
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(t.Context(), path, append([]string{"secrets"}, args...)...)
		for name, value := range with(keys) {
			cmd.Env = append(cmd.Env, name+"="+value)
		}
		out, err := cmd.CombinedOutput()
		if cmd.ProcessState == nil {
			t.Fatalf("secrets %v: %v", args, err)
		}
		return string(out), cmd.ProcessState.ExitCode()
	}

	p := start(t, with(former), "run")
	eventually(t, patience, "it is ready", func() bool { return healthy(t, addr, "/readyz") })
	first, second := newSubscriber(t, nil), newSubscriber(t, nil)
	sub := s.subscribe(first.URL, nil, "E")
	idle := s.subscribe(second.URL, nil, "NEVER")
	s.post("E", 1)
	eventually(t, patience, "the first event arrives", func() bool { return len(first.got()) == 1 })
	p.stop(t)

	// The new key alone.
	p = start(t, with(next), "run")
	var body string
	eventually(t, patience, "readiness says what cannot be opened", func() bool {
		_, state, text := askReady(t, addr)
		body = text
		return strings.Contains(state.Reason, "2 subscriptions cannot be opened with POSTHORN_SECRET_KEY")
	})
	if healthy(t, addr, "/readyz") {
		t.Errorf("delivery is ready: %s", body)
	}
	s.must(http.MethodPatch, "/subscription/"+sub.ID, map[string]any{"url": second.URL}, nil)
	if status := s.do(http.MethodPost, "/subscription/"+sub.ID+"/rotate-secret", nil, nil); status != http.StatusConflict {
		t.Errorf("rotating a secret that cannot be opened: %d, want 409", status)
	}
	s.post("E", 1)
	eventually(t, patience, "the second event waits", func() bool { return s.ledger(sub.ID)["pending"] == 1 })
	if out, code := secrets(next, "status"); code != 3 || !strings.Contains(out, "NOT in POSTHORN_SECRET_KEY") {
		t.Errorf("status with a key missing: exit %d\n%s", code, out)
	}
	if out, code := secrets(next, "reseal"); code != 3 || !strings.Contains(out, "2 cannot be opened") {
		t.Errorf("reseal with a key missing: exit %d\n%s", code, out)
	}
	p.stop(t)

	// With both keys everything continues, to the current URL.
	p = start(t, with(next+","+former), "run")
	eventually(t, patience, "it is ready with both", func() bool { return healthy(t, addr, "/readyz") })
	eventually(t, patience, "the second event arrives at the new URL", func() bool { return len(second.got()) == 1 })
	if n := len(first.got()); n != 1 {
		t.Errorf("%d requests to the former URL, want 1", n)
	}
	// A change reseals; the command does the rest.
	s.must(http.MethodPatch, "/subscription/"+sub.ID, map[string]any{"description": "resealed"}, nil)
	if out, code := secrets(next+","+former, "reseal", "--dry-run"); code != 0 || !strings.HasPrefix(out, "1 values would") {
		t.Errorf("dry run: exit %d\n%s", code, out)
	}
	if out, code := secrets(next+","+former, "reseal"); code != 0 || !strings.Contains(out, "1 values are sealed") || !strings.Contains(out, "0 cannot be opened") {
		t.Errorf("reseal: exit %d\n%s", code, out)
	}
	p.stop(t)

	// And the former key is gone.
	if out, code := secrets(next, "status", "--json"); code != 0 || strings.Contains(out, "missing") {
		t.Errorf("status at the end: exit %d\n%s", code, out)
	}
	start(t, with(next), "run")
	eventually(t, patience, "it is ready with the new key", func() bool { return healthy(t, addr, "/readyz") })
	s.post("E", 1)
	s.post("NEVER", 1)
	eventually(t, patience, "both subscriptions get theirs", func() bool { return len(second.got()) == 3 })
	for _, r := range second.got() {
		var e struct{ Type string }
		if err := json.Unmarshal(r.body, &e); err != nil {
			t.Fatal(err)
		}
		of := sub
		if e.Type == "NEVER" {
			of = idle
		}
		secret, err := webhook.ParseSecret(of.Secret)
		if err != nil {
			t.Fatal(err)
		}
		if err := webhook.Verify(r.header, r.body, time.Hour, secret); err != nil {
			t.Errorf("%s is not signed with the subscription's secret: %v", e.Type, err)
		}
	}
}
