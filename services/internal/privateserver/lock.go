package privateserver

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// lock is held on a folder for as long as its server may run. The kernel
// releases it when the holder ends for any reason.
type lock struct{ file *os.File }

func (h *home) lock() (*lock, error) {
	f, err := os.OpenFile(filepath.Join(h.dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		defer func() { _ = f.Close() }() // read only
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock folder: %w", err)
		}
		holder, err := io.ReadAll(io.LimitReader(f, 32))
		if err != nil || len(holder) == 0 {
			holder = []byte("unknown")
		}
		return nil, fmt.Errorf("%s: %w by the process with pid %s", h.dir, ErrInUse, strings.TrimSpace(string(holder)))
	}
	if err := errors.Join(f.Truncate(0), writePID(f)); err != nil {
		return nil, errors.Join(fmt.Errorf("write lock: %w", err), f.Close())
	}
	return &lock{file: f}, nil
}

func writePID(f *os.File) error {
	_, err := fmt.Fprintln(f, os.Getpid())
	return err
}

func (l *lock) release() error { return l.file.Close() }
