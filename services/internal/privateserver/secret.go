package privateserver

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// password returns the server's password, which is generated at the first start
// and kept in its folder, readable only by the user that starts it.
func (h *home) password() (string, error) {
	path := filepath.Join(h.dir, "password")
	content, err := os.ReadFile(path) //nolint:gosec // in the server's folder
	if err == nil && len(content) > 0 {
		return strings.TrimSpace(string(content)), nil
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("read password: %w", err)
	}
	password := rand.Text()
	if err := os.WriteFile(path, []byte(password+"\n"), 0o600); err != nil {
		return "", fmt.Errorf("keep password: %w", err)
	}
	return password, nil
}
