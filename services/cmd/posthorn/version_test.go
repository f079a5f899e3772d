package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestTheNameOfATagRunsNothing builds in a clone whose tag is hostile, with a
// compiler that only prints its arguments.
func TestTheNameOfATagRunsNothing(t *testing.T) {
	t.Parallel()
	makefile, err := os.ReadFile("../../../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	for tag, fine := range map[string]bool{
		"v1.2.3-rc.1+build_7": true, "v9';touch${IFS}pwned;'": false, "v9$(touch${IFS}pwned)": false, "v9`touch${IFS}pwned`": false,
		"v9;touch${IFS}pwned": false, "v9\"-X": false, "v9&touch": false, "v9|touch": false, "v9'": false, "v9$$": false,
	} {
		dir := t.TempDir()
		stub := filepath.Join(dir, "stub")
		compiler := "#!/bin/sh\necho \"$@\" >>" + filepath.Join(dir, "asked") + "\n"
		if err := errors.Join(os.Mkdir(stub, 0o755), os.WriteFile(filepath.Join(stub, "go"), []byte(compiler), 0o755),
			os.WriteFile(filepath.Join(dir, "Makefile"), makefile, 0o600)); err != nil {
			t.Fatal(err)
		}
		do := func(name string, args ...string) (string, error) {
			cmd := exec.CommandContext(t.Context(), name, args...)
			cmd.Dir = dir
			// Without the variables of the make that runs the tests.
			cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool {
				return strings.HasPrefix(v, "VERSION=") || strings.HasPrefix(v, "MAKE") || strings.HasPrefix(v, "MFLAGS=")
			})
			cmd.Env = append(cmd.Env, "PATH="+stub+":"+os.Getenv("PATH"), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null")
			out, err := cmd.CombinedOutput()
			return string(out), err
		}
		for _, args := range [][]string{
			{"init", "-q"}, {"-c", "user.name=t", "-c", "user.email=t@t", "commit", "-q", "--allow-empty", "-m", "t"}, {"tag", tag},
		} {
			if out, err := do("git", args...); err != nil {
				t.Fatalf("git %q: %v: %s", args, err, out)
			}
		}
		for _, args := range [][]string{{"build"}, {"build", "VERSION=" + strings.ReplaceAll(tag, "$", "$$")}} {
			out, err := do("make", args...)
			asked, _ := os.ReadFile(filepath.Join(dir, "asked"))
			if _, missing := os.Stat(filepath.Join(dir, "pwned")); missing == nil {
				t.Fatalf("tag %q: make %q ran what it says", tag, args)
			}
			switch {
			case fine && (err != nil || !strings.Contains(string(asked), "main.version="+tag)):
				t.Errorf("tag %q: make %q: %v: %s; the compiler was asked for %s", tag, args, err, out, asked)
			case !fine && (err == nil || !strings.Contains(out, "invalid version") || len(asked) > 0):
				t.Errorf("tag %q: make %q: %v: %s; the compiler was asked for %s", tag, args, err, out, asked)
			}
		}
	}
}
