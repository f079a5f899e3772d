package site

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// Folder creates a temporary folder whose name begins with prefix, in another
// folder (by default the system's), and returns a function that removes it with
// its contents.
func Folder(in, prefix string) (dir string, remove func() error, err error) {
	dir, err = os.MkdirTemp(in, prefix)
	if err != nil {
		return "", nil, fmt.Errorf("make folder: %w", err)
	}
	remove = func() error {
		if err := os.RemoveAll(dir); err != nil {
			return fmt.Errorf("remove folder: %w", err)
		}
		return nil
	}
	if err := os.Chmod(dir, 0o711); err != nil { //nolint:gosec // the servers' users have to pass through
		return "", nil, errors.Join(fmt.Errorf("open folder to the servers: %w", err), remove())
	}
	return dir, remove, nil
}

// Load reads the output of Save. A missing file leaves results unchanged.
func Load(path string, results any) error {
	content, err := os.ReadFile(path) //nolint:gosec // a flag of the command
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read results: %w", err)
	}
	if err := json.Unmarshal(content, results); err != nil {
		return fmt.Errorf("read results in %s: %w", path, err)
	}
	return nil
}

// Save writes results in a form that is also readable by people.
func Save(path string, results any) error {
	content, err := json.MarshalIndent(results, "", "  ")
	if err != nil {
		return fmt.Errorf("encode results: %w", err)
	}
	if err := os.WriteFile(path, content, 0o600); err != nil {
		return fmt.Errorf("write results: %w", err)
	}
	return nil
}
