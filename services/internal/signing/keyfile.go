package signing

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

const maxKeyFile = 4096

// LoadOrCreateKeyFile returns the ring in the file at path. If there is none it
// generates a key and writes it there, readable by its owner only. It is for
// the open mode, where a newcomer should not have to provide a key but secrets
// are still sealed. Of several programs that start at once, one creates the key
// and all use it.
//
// It refuses a file that others may read, and never overwrites one that is not
// a key: values sealed with it would be lost.
func LoadOrCreateKeyFile(path string) (*Keyring, error) {
	ring, err := loadKeyFile(path)
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return ring, err
	}
	if err := createKeyFile(path); err != nil {
		return nil, fmt.Errorf("create key file: %w", err)
	}
	return loadKeyFile(path)
}

func loadKeyFile(path string) (*Keyring, error) {
	file, err := os.Open(path) //nolint:gosec // the operator's own path
	if err != nil {
		return nil, fmt.Errorf("open key file: %w", err)
	}
	defer func() { _ = file.Close() }() // read only
	info, err := file.Stat()
	if err != nil {
		return nil, fmt.Errorf("open key file: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("open key file %s: not a file: %w", path, ErrInvalidKey)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("open key file %s: others may read it (mode %#o; chmod 600 it): %w",
			path, info.Mode().Perm(), ErrInvalidKey)
	}
	text, err := io.ReadAll(io.LimitReader(file, maxKeyFile))
	if err != nil {
		return nil, fmt.Errorf("read key file: %w", err)
	}
	ring, err := ParseKeyring(string(text))
	if err != nil {
		return nil, fmt.Errorf("key file %s: %w", path, err)
	}
	return ring, nil
}

// createKeyFile leaves a complete file at path or none: it writes the key under
// another name and links it, which fails if path exists.
func createKeyFile(path string) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	file, err := os.CreateTemp(dir, ".key-*") // of mode 0600
	if err != nil {
		return fmt.Errorf("make file: %w", err)
	}
	defer func() { _ = os.Remove(file.Name()) }() // path stays
	_, err = file.WriteString(GenerateKey() + "\n")
	if err = errors.Join(err, file.Sync(), file.Close()); err != nil {
		return fmt.Errorf("write file: %w", err)
	}
	if err := os.Link(file.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("name file: %w", err)
	}
	return syncDir(dir)
}

// syncDir makes the new name survive a power failure, before anything is sealed.
func syncDir(dir string) error {
	d, err := os.Open(dir) //nolint:gosec // the operator's own path
	if err != nil {
		return fmt.Errorf("open directory: %w", err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	return nil
}
