package site_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"posthorn/services/lab/site"
)

// sh is a shell that runs a script, in which $0 is the number of the start.
func sh(script string) func(int) *exec.Cmd {
	return func(start int) *exec.Cmd {
		return exec.CommandContext(context.Background(), "/bin/sh", "-c", script, strings.Repeat("i", start))
	}
}

func start(t *testing.T, again time.Duration, script string) *site.Process {
	t.Helper()
	p, err := site.StartProcess("shell", again, sh(script))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Kill(); err != nil {
			t.Error(err)
		}
	})
	return p
}

func TestAProcessIsStartedAgainUntilItIsToStop(t *testing.T) {
	t.Parallel()
	p := start(t, time.Millisecond, `test $0 = iii && exec sleep 60; exit 3`)
	if err := site.Await(t.Context(), 10*time.Second, "the third start", func() bool { return p.Starts() == 3 && p.PID() != 0 }); err != nil {
		t.Fatal(err)
	}
	if p.Crashes() != 2 {
		t.Errorf("%d crashes, want 2", p.Crashes())
	}
	if err := p.Kill(); err != nil {
		t.Fatal(err)
	}
	if p.PID() != 0 || p.Starts() != 3 {
		t.Errorf("after Kill: process %d, %d starts", p.PID(), p.Starts())
	}
}

func TestAProcessThatIsNotStartedAgainSaysHowItEnded(t *testing.T) {
	t.Parallel()
	p := start(t, 0, `exit 3`)
	<-p.Done()
	if exit, ok := errors.AsType[*exec.ExitError](p.Err()); !ok || exit.ExitCode() != 3 || !strings.HasPrefix(p.Err().Error(), "shell ended") {
		t.Errorf("Err = %v", p.Err())
	}
	if err := p.Signal(syscall.SIGTERM); err != nil {
		t.Errorf("Signal to what has ended = %v", err)
	}
}

func TestStopAsksAndKillsWhatDoesNotHear(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		`trap 'exit 0' TERM`: "",
		`trap '' TERM`:       "shell did not stop within",
	} {
		ready := filepath.Join(t.TempDir(), "ready")
		p := start(t, 0, name+`; touch `+ready+`; while :; do sleep 0.01; done`)
		err := site.Await(t.Context(), 10*time.Second, "the trap is set", func() bool { _, err := os.Stat(ready); return err == nil })
		if err != nil {
			t.Fatal(err)
		}
		within := 10 * time.Second
		if want != "" {
			within = 50 * time.Millisecond
		}
		if err := p.Stop(t.Context(), within); want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("Stop with %s = %v, want %q", name, err, want)
		}
	}
}

func TestACommandThatIsNotThereIsAnError(t *testing.T) {
	t.Parallel()
	_, err := site.StartProcess("nothing", time.Second, func(int) *exec.Cmd { return exec.CommandContext(t.Context(), "/no/such/command") })
	if err == nil || !strings.Contains(err.Error(), "start nothing") {
		t.Errorf("StartProcess = %v", err)
	}
}

func TestWaitingEndsWithTheTimeAndWithTheProcess(t *testing.T) {
	t.Parallel()
	if err := site.Await(t.Context(), time.Millisecond, "never", func() bool { return false }); err == nil || !strings.Contains(err.Error(), "until never") {
		t.Errorf("Await = %v", err)
	}
	addrs, err := site.FreeAddrs(t.Context(), 2)
	if err != nil || addrs[0] == addrs[1] {
		t.Fatalf("FreeAddrs = %v, %v", addrs, err)
	}
	p := start(t, 0, `exit 3`)
	if err := site.AwaitReady(t.Context(), 10*time.Second, addrs[0], p); err == nil || !strings.Contains(err.Error(), "it ended before it was ready") {
		t.Errorf("AwaitReady = %v", err)
	}
}
