package privateserver_test

import (
	"bufio"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"posthorn/services/internal/privateserver"
)

// processesBelow returns the processes whose working directory is in dir.
func processesBelow(t *testing.T, dir string) []string {
	t.Helper()
	links, err := filepath.Glob("/proc/[0-9]*/cwd")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, link := range links {
		// A process may end, or be a zombie, between the two calls.
		if cwd, err := os.Readlink(link); err == nil && strings.HasPrefix(cwd, dir) {
			name, _ := os.ReadFile(filepath.Join(filepath.Dir(link), "comm"))
			found = append(found, filepath.Base(filepath.Dir(link))+" "+strings.TrimSpace(string(name)))
		}
	}
	return found
}

// listening returns the addresses that the processes below dir listen on, as
// the kernel writes them.
func listening(t *testing.T, dir string) []string {
	t.Helper()
	sockets := map[string]bool{}
	for _, process := range processesBelow(t, dir) {
		pid, _, _ := strings.Cut(process, " ")
		links, err := filepath.Glob("/proc/" + pid + "/fd/*")
		if err != nil {
			t.Fatal(err)
		}
		for _, link := range links {
			if target, err := os.Readlink(link); err == nil && strings.HasPrefix(target, "socket:[") {
				sockets[strings.TrimSuffix(strings.TrimPrefix(target, "socket:["), "]")] = true
			}
		}
	}
	const listen = "0A"
	var addresses []string
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		f, err := os.Open(table)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		for lines := bufio.NewScanner(f); lines.Scan(); {
			fields := strings.Fields(lines.Text())
			if len(fields) > 9 && fields[3] == listen && sockets[fields[9]] {
				addresses = append(addresses, fields[1])
			}
		}
		_ = f.Close()
	}
	return addresses
}

func TestNothingListensBeyondLoopback(t *testing.T) {
	t.Parallel()
	dir := folder(t)
	startPostgres(t, privateserver.Options{Dir: filepath.Join(dir, "postgres")})
	mq := startRabbitMQ(t, privateserver.Options{Dir: filepath.Join(dir, "rabbitmq")})
	if name, err := os.ReadFile("/proc/" + strconv.Itoa(mq.PID()) + "/comm"); err != nil || strings.TrimSpace(string(name)) != "beam.smp" {
		t.Errorf("the pid is that of %q, %v", name, err)
	}
	// rabbitmqctl is also a distributed Erlang node.
	if _, err := mq.Ctl(t.Context(), "await_startup"); err != nil {
		t.Fatal(err)
	}
	addresses := listening(t, dir)
	// Postgres, AMQP, the web page, distribution, epmd.
	if len(addresses) < 5 {
		t.Errorf("expected five listeners at least, found %v", addresses)
	}
	for _, address := range addresses {
		host, _, _ := strings.Cut(address, ":")
		if host != "0100007F" && host != "00000000000000000000000001000000" {
			t.Errorf("listens on %s", address)
		}
	}
}

func TestServersEndWithTheProgramThatWasKilledAndStartAgain(t *testing.T) {
	t.Parallel()
	dir := folder(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	starter := exec.CommandContext(t.Context(), self, "starter", dir)
	output, err := starter.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := starter.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(output).ReadString('\n')
	if err != nil || !strings.HasPrefix(line, "started") {
		t.Fatalf("the starter said %q, %v", line, err)
	}
	if err := starter.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = starter.Wait() // it was killed
	eventually(t, "postgres, rabbitmq and epmd have ended", func() bool { return len(processesBelow(t, dir)) == 0 })

	pg := startPostgres(t, privateserver.Options{Dir: filepath.Join(dir, "postgres")})
	if err := execute(t, pg.URL(), "SELECT 1"); err != nil {
		t.Error(err)
	}
	startRabbitMQ(t, privateserver.Options{Dir: filepath.Join(dir, "rabbitmq")})
}

func TestAServerLeftBehindIsEndedByTheNextStart(t *testing.T) {
	t.Parallel()
	o := privateserver.Options{Dir: folder(t)}
	pg := startPostgres(t, o)
	stop(t, pg)
	// A server of ours is recognised by its working directory.
	data := filepath.Join(o.Dir, "data")
	leftover := exec.CommandContext(t.Context(), "sleep", "600")
	leftover.Dir = data
	if err := leftover.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- leftover.Wait() }()
	if err := os.WriteFile(filepath.Join(data, "postmaster.pid"), []byte(strconv.Itoa(leftover.Process.Pid)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	again := startPostgres(t, o)
	if err := <-ended; err == nil {
		t.Error("the leftover was not ended")
	}
	if err := execute(t, again.URL(), "SELECT 1"); err != nil {
		t.Error(err)
	}
}
