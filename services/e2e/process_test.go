package e2e_test

import (
	"context"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"posthorn/services/internal/signing"
)

// binaryDir is where the command is built; TestMain makes and removes it.
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

// start starts a command of the binary with these variables and no others of
// ours.
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
		t.Fatal("the program does not stop")
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

// well reports whether a health address answers 200.
func well(t *testing.T, addr, path string) bool {
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

func TestOneProcessRunsAllOfItOnAnyServers(t *testing.T) {
	t.Parallel()
	s := newSystem(t, "")
	addr := freeAddr(t)
	s.url = "http://" + addr
	p := start(t, map[string]string{
		"DATABASE_URL": s.dbURL, "AMQP_URL": s.broker.URL, "HTTP_ADDR": addr, "POSTHORN_ALLOW_NETWORKS": "127.0.0.0/8",
		"POSTHORN_NAMESPACE": s.broker.Namespace,
	}, "run")
	eventually(t, patience, "it is ready", func() bool { return well(t, addr, "/readyz") })
	r := newSubscriber(t, nil)
	sub := s.subscribe(r.URL, nil, "LIKED_PHOTO")
	s.must(http.MethodPost, "/like/1", nil, nil)
	eventually(t, patience, "the webhook arrives", func() bool { return s.ledger(sub.ID)["delivered"] == 1 })
	p.stop(t)
}

func TestEachPartRunsApartAndSeveralTimes(t *testing.T) {
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
		eventually(t, patience, "all are ready", func() bool { return well(t, addr, "/readyz") })
	}
	r := newSubscriber(t, nil)
	s.url = "http://" + first
	sub := s.subscribe(r.URL, nil, "E")
	ids := s.post("E", 1000)
	s.url = "http://" + second
	ids = append(ids, s.post("E", 1000)...)
	// A rolling deploy: those that stop drain, those that stay go on.
	delivery.stop(t)
	relay.stop(t)
	ids = append(ids, s.post("E", 1000)...)
	eventually(t, 2*patience, "everything is delivered", func() bool { return s.ledger(sub.ID)["delivered"] == len(ids) })
	once(t, r, ids)
}
