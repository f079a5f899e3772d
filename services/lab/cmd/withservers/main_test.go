package main

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

func TestTheCommandGetsTheServersAndItsStatusIsOurs(t *testing.T) {
	t.Parallel()
	var stdout, stderr bytes.Buffer
	parent, err := os.MkdirTemp("", "withservers-test-") //nolint:usetesting // t.TempDir is closed to the servers' users
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(parent) })
	if err := os.Chmod(parent, 0o711); err != nil {
		t.Fatal(err)
	}
	script := `echo "$DATABASE_URL"; echo "$AMQP_URL"; echo "$RABBITMQ_MANAGEMENT_URL"; exit 7`
	status, err := run(t.Context(), []string{"-dir", parent, "sh", "-c", script}, strings.NewReader(""), &stdout, &stderr)
	if err != nil || status != 7 {
		t.Errorf("status %d, error %v, stderr %s", status, err, stderr.String())
	}
	lines := strings.Split(stdout.String(), "\n")
	for i, prefix := range []string{"postgres://posthorn:", "amqp://posthorn:", "http://posthorn:"} {
		if i >= len(lines) || !strings.HasPrefix(lines[i], prefix) {
			t.Errorf("line %d does not begin with %s: %q", i, prefix, lines)
		}
	}
	left, err := os.ReadDir(parent)
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestACommandThatASignalEndsHasTheShellsStatus(t *testing.T) {
	t.Parallel()
	cmd := exec.CommandContext(t.Context(), "sh", "-c", "kill -KILL $$")
	if status, err := attend(cmd, nil); err != nil || status != 128+9 {
		t.Errorf("status %d, error %v", status, err)
	}
}

func TestATerminationIsPassedOnAndCtrlCIsAwaited(t *testing.T) {
	t.Parallel()
	cmd := exec.CommandContext(t.Context(), "sh", "-c", `trap 'exit 8' INT; trap 'exit 9' TERM; echo ready; read -r never`)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = stdin.Close() })
	ready := make(writeSignal, 1)
	cmd.Stdout = ready
	signals := make(chan os.Signal, 2)
	go func() {
		<-ready
		signals <- syscall.SIGINT // from the terminal, which also sends it to the command
		signals <- syscall.SIGTERM
	}()
	if status, err := attend(cmd, signals); err != nil || status != 9 {
		t.Errorf("status %d, error %v", status, err)
	}
}

// writeSignal signals a write.
type writeSignal chan struct{}

func (w writeSignal) Write(p []byte) (int, error) {
	select {
	case w <- struct{}{}:
	default:
	}
	return len(p), nil
}

func TestWrongFlagsAndMissingCommandsAreUsageErrors(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{}, {"-chroot"}, {"-no-such-flag", "true"}} {
		if status, err := run(t.Context(), args, strings.NewReader(""), io.Discard, io.Discard); status != 2 || err == nil {
			t.Errorf("%q: status %d, error %v", args, status, err)
		}
	}
}
