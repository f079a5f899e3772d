package main

import (
	"io"
	"os"
	"path/filepath"
	"testing"
)

// An existing file or link with a predictable name beside the output file is
// neither followed nor written to.
func TestAnExportTrustsNoExistingFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	name, victim := filepath.Join(dir, "out.jsonl"), filepath.Join(dir, "victim")
	if err := os.WriteFile(victim, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(victim, name+".part"); err != nil {
		t.Fatal(err)
	}
	if err := wholeFile(name, func(w io.Writer) error { _, err := io.WriteString(w, "line\n"); return err }); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{victim: "mine", name: "line\n"} {
		if got, err := os.ReadFile(path); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v, want %q", path, got, err, want)
		}
	}
	info, err := os.Stat(name)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v, want only the owner to have access", info.Mode(), err)
	}
}
