//go:build failpoints

package failpoint_test

import (
	"os"
	"os/exec"
	"syscall"
	"testing"

	"posthorn/services/internal/failpoint"
)

func TestAPointKillsAtItsHit(t *testing.T) {
	t.Parallel()
	if os.Getenv("FAILPOINT_CHILD") != "" {
		if err := failpoint.Arm("a=kill@3"); err != nil {
			t.Fatal(err)
		}
		failpoint.Hit("b")
		failpoint.Hit("a")
		failpoint.Hit("a")
		_, _ = os.Stdout.WriteString("two hits\n")
		failpoint.Hit("a")
		_, _ = os.Stdout.WriteString("survived\n")
		return
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestAPointKillsAtItsHit$")
	cmd.Env = append(os.Environ(), "FAILPOINT_CHILD=1")
	out, err := cmd.Output()
	if err == nil || string(out) != "two hits\n" {
		t.Fatalf("said %q and ended with %v", out, err)
	}
	if wait, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || wait.Signal() != syscall.SIGKILL {
		t.Errorf("ended with %v, want SIGKILL", cmd.ProcessState)
	}
}

func TestNonsenseIsRefused(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"a", "a=explode", "a=kill@0", "a=kill@x", "a=sleep:long"} {
		if err := failpoint.Arm(text); err == nil {
			t.Errorf("Arm(%q) took it", text)
		}
	}
}
