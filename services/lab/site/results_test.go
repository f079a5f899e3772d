package site_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"posthorn/services/lab/site"
)

func TestResultsAreKeptAndWhatIsNotThereIsNoError(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "results.json")
	got := map[string]int{"before": 1}
	if err := site.Load(path, &got); err != nil || got["before"] != 1 {
		t.Errorf("Load of no file = %v, results %v", err, got)
	}
	want := map[string]int{"a": 1, "b": 2}
	if err := site.Save(path, want); err != nil {
		t.Fatal(err)
	}
	got = nil
	if err := site.Load(path, &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("results (-saved +loaded):\n%s", diff)
	}
	if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := site.Load(path, &got); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("Load of rubbish = %v, want an error that names %s", err, path)
	}
}

func TestFolderLetsOthersThroughAndIsRemoved(t *testing.T) {
	t.Parallel()
	dir, remove, err := site.Folder("", "posthorn-lab-")
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(dir)
	if err != nil || info.Mode().Perm() != 0o711 {
		t.Errorf("folder: %v, %v, want mode 0711", info.Mode(), err)
	}
	if err := remove(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("folder is still there: %v", err)
	}
}
