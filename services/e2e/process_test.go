package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"posthorn/services/internal/signing"
)

// binaryDir is where the command is built; TestMain creates and removes it.
var binaryDir string //nolint:gochecknoglobals // set once, before any test

// binary builds the command once for all tests.
var binary = sync.OnceValues(func() (string, error) { //nolint:gochecknoglobals // built once
	path := filepath.Join(binaryDir, "posthorn")
	out, err := exec.CommandContext(context.Background(), "go", "build", "-o", path, "posthorn/services/cmd/posthorn").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build: %w: %s", err, out)
	}
	return path, nil
})

// program is a running command.
type program struct {
	cmd  *exec.Cmd
	done chan struct{}
	err  error
}

// start starts a command of the binary with only these of our variables.
func start(t *testing.T, env map[string]string, args ...string) *program {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), path, args...)
	cmd.Dir = t.TempDir()
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + cmd.Dir}
	for k, v := range env {
		cmd.Env = append(cmd.Env, k+"="+v)
	}
	cmd.Stdout, cmd.Stderr = t.Output(), t.Output()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &program{cmd: cmd, done: make(chan struct{})}
	go func() {
		defer close(p.done)
		p.err = cmd.Wait()
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		<-p.done
	})
	return p
}

// stop asks the program to stop and waits until it has drained.
func (p *program) stop(t *testing.T) {
	t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case <-p.done:
	case <-time.After(patience):
		t.Fatal("the program did not stop")
	}
	if p.err != nil {
		t.Errorf("the program ended with %v", p.err)
	}
}

func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

// healthy reports whether a health endpoint responds with 200.
func healthy(t *testing.T, addr, path string) bool {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+addr+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	_ = resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

func TestOneProcessRunsEverythingOnGivenServers(t *testing.T) {
	t.Parallel()
	s := newSystem(t, "")
	addr := freeAddr(t)
	s.url = "http://" + addr
	p := start(t, map[string]string{
		"DATABASE_URL": s.dbURL, "AMQP_URL": s.broker.URL, "HTTP_ADDR": addr, "POSTHORN_ALLOW_NETWORKS": "127.0.0.0/8",
		"POSTHORN_NAMESPACE": s.broker.Namespace,
	}, "run")
	eventually(t, patience, "it is ready", func() bool { return healthy(t, addr, "/readyz") })
	r := newSubscriber(t, nil)
	sub := s.subscribe(r.URL, nil, "LIKED_PHOTO")
	s.must(http.MethodPost, "/like/1", nil, nil)
	eventually(t, patience, "the webhook arrives", func() bool { return s.ledger(sub.ID)["delivered"] == 1 })
	p.stop(t)
}

func TestEachPartRunsSeparatelyAndSeveralTimes(t *testing.T) {
	t.Parallel()
	s := newSystem(t, "")
	env := map[string]string{
		"DATABASE_URL": s.dbURL, "AMQP_URL": s.broker.URL, "POSTHORN_SECRET_KEY": signing.GenerateKey(),
		"POSTHORN_ALLOW_NETWORKS": "127.0.0.0/8", "POSTHORN_NAMESPACE": s.broker.Namespace,
	}
	with := func(name, value string) map[string]string {
		all := maps.Clone(env)
		all[name] = value
		return all
	}
	start(t, env, "migrate")
	first, second := freeAddr(t), freeAddr(t)
	start(t, with("HTTP_ADDR", first), "api")
	start(t, with("HTTP_ADDR", second), "api")
	health := []string{freeAddr(t), freeAddr(t), freeAddr(t), freeAddr(t)}
	relay := start(t, with("METRICS_ADDR", health[0]), "relay")
	start(t, with("METRICS_ADDR", health[1]), "relay")
	delivery := start(t, with("METRICS_ADDR", health[2]), "delivery")
	start(t, with("METRICS_ADDR", health[3]), "delivery")
	for _, addr := range append([]string{first, second}, health...) {
		eventually(t, patience, "all are ready", func() bool { return healthy(t, addr, "/readyz") })
	}
	r := newSubscriber(t, nil)
	s.url = "http://" + first
	sub := s.subscribe(r.URL, nil, "E")
	ids := s.post("E", 1000)
	s.url = "http://" + second
	ids = append(ids, s.post("E", 1000)...)
	// A rolling deploy: stopping parts drain, the others continue.
	delivery.stop(t)
	relay.stop(t)
	ids = append(ids, s.post("E", 1000)...)
	eventually(t, 2*patience, "everything is delivered", func() bool { return s.ledger(sub.ID)["delivered"] == len(ids) })
	once(t, r, ids)
}

// readyState is the response of /readyz.
type readyState struct {
	Status, Reason string
	Parts          map[string]struct {
		Status   string
		Problems []string
	}
}

func askReady(t *testing.T, addr string) (status int, state readyState, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+addr+"/readyz", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, state, ""
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &state); err != nil {
		t.Fatalf("/readyz: %d %q: %v", resp.StatusCode, text, err)
	}
	return resp.StatusCode, state, string(text)
}

// TestAPartWithAWrongPasswordIsNeverReady polls continuously, since a single
// 200 would let a rolling update finish with processes that do nothing.
func TestAPartWithAWrongPasswordIsNeverReady(t *testing.T) {
	t.Parallel()
	s := newSystem(t, "")
	u, err := url.Parse(s.broker.URL)
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.UserPassword(u.User.Username(), "not-the-password")
	secret := signing.GenerateKey()
	addrs := map[string]string{"run": freeAddr(t), "relay": freeAddr(t), "delivery": freeAddr(t)}
	for command, addr := range addrs {
		env := map[string]string{
			"DATABASE_URL": s.dbURL, "AMQP_URL": u.String(), "POSTHORN_SECRET_KEY": secret, "POSTHORN_NAMESPACE": s.broker.Namespace,
			"METRICS_ADDR": addr,
		}
		if command == "run" {
			env["HTTP_ADDR"] = addr
			delete(env, "METRICS_ADDR")
		}
		start(t, env, command)
	}
	for command, addr := range addrs {
		var state readyState
		var body string
		eventually(t, patience, command+" says that RabbitMQ refuses it", func() bool {
			var status int
			status, state, body = askReady(t, addr)
			if status == http.StatusOK {
				t.Fatalf("%s is ready: %s", command, body)
			}
			return strings.Contains(state.Reason, "RabbitMQ refuses")
		})
		for _, secret := range []string{"127.0.0.1", "not-the-password", u.Host} {
			if strings.Contains(body, secret) {
				t.Errorf("%s shows %s: %s", command, secret, body)
			}
		}
		if command == "run" && (state.Parts["api"].Status != "ready" || state.Parts["relay"].Status != "not ready" || state.Parts["delivery"].Status != "not ready") {
			t.Errorf("run: %s", body)
		}
		if !healthy(t, addr, "/healthz") {
			t.Errorf("%s: /healthz fails although the process is alive", command)
		}
	}
}

func TestWhichPartsCountForReadinessCanBeSet(t *testing.T) {
	t.Parallel()
	s := newSystem(t, "")
	addr := freeAddr(t)
	start(t, map[string]string{
		"DATABASE_URL": s.dbURL, "AMQP_URL": "amqp://127.0.0.1:1/", "HTTP_ADDR": addr, "POSTHORN_SECRET_KEY": signing.GenerateKey(),
		"POSTHORN_READY_PARTS": "api",
	}, "run")
	eventually(t, patience, "it is ready", func() bool { return healthy(t, addr, "/readyz") })
	eventually(t, patience, "it shows the others", func() bool {
		_, state, _ := askReady(t, addr)
		return state.Parts["relay"].Status == "not ready" && slices.Contains(state.Parts["delivery"].Problems, "RabbitMQ cannot be reached")
	})
}
