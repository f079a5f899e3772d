package faults_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"posthorn/services/lab/faults"
)

const (
	// budget is the time after which no further row is begun.
	budget = time.Minute
	// atLeast is how many rows are run in any case, including the one without a fault.
	atLeast = 2
)

// TestFaults runs the quick rows of the suite, in random order, until its time
// is over; make faults runs all rows. FAULTS_SEED repeats an order and the
// random choices of the rows. A summary line goes to the file that
// POSTHORN_FAULTS_SUMMARY names.
func TestFaults(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("FAULTS_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("FAULTS_SEED=%d", seed)
	begun := time.Now()
	bench := newBench(t, seed)
	chosen := quickRows(seed)
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	run, passed, rowsBegun := 0, 0, time.Now()
	for _, s := range chosen {
		if run >= atLeast && time.Since(rowsBegun) > budget {
			break
		}
		run++
		row, err := bench.Run(ctx, s)
		switch {
		case err != nil:
			t.Errorf("%s could not be run: %v", s.Name, err)
		case row.Verdict != "":
			t.Errorf("%s: %s", s.Name, row.Verdict)
		default:
			passed++
		}
		t.Logf("%s: %d accepted, %d duplicated, recovery %v", s.Name, row.Accepted, row.Duplicated, row.Recovery)
	}
	summary := fmt.Sprintf("fault subset: %d of %d quick rows in %.0f s, %d passed (FAULTS_SEED=%d)\n",
		run, len(chosen), time.Since(begun).Seconds(), passed, seed)
	t.Log(summary)
	if path := os.Getenv("POSTHORN_FAULTS_SUMMARY"); path != "" {
		if err := os.WriteFile(path, []byte(summary), 0o600); err != nil {
			t.Error(err)
		}
	}
}

// quickRows returns the run without a fault, and the others in random order.
func quickRows(seed uint64) []faults.Scenario {
	var quick []faults.Scenario
	for _, s := range faults.Suite(0) {
		if s.Quick {
			quick = append(quick, s)
		}
	}
	rest := quick[1:]
	rand.New(rand.NewPCG(seed, 0)).Shuffle(len(rest), func(i, j int) { rest[i], rest[j] = rest[j], rest[i] })
	return quick
}

// newBench has its own servers and binary, which end with the test.
func newBench(t *testing.T, seed uint64) *faults.Bench {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{dir, filepath.Dir(dir)} { // the servers' users have to pass through
		if err := os.Chmod(d, 0o711); err != nil {
			t.Fatal(err)
		}
	}
	binary := filepath.Join(dir, "posthorn")
	build := exec.CommandContext(t.Context(), "go", "build", "-tags", "failpoints", "-o", binary, "posthorn/services/cmd/posthorn")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v: %s", err, out)
	}
	servers, err := faults.StartServers(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := servers.Kill(); err != nil {
			t.Error(err)
		}
	})
	return &faults.Bench{Servers: servers, Binary: binary, Dir: dir, Seed: seed}
}
