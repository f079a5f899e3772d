package privateserver

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// sharedDir holds root's data that would otherwise be below a folder closed to others.
const sharedDir = "/var/lib/posthorn"

// account is the user that a server runs as when root starts it.
type account struct {
	name     string
	uid, gid uint32
}

// accountFor returns the user that the server has to run as: nil for a caller
// that is not root; the owner of existing data, so that a folder can be used by
// its user today and by root tomorrow; otherwise the package's own user.
func accountFor(chroot, systemUser, data string) (*account, error) {
	if os.Geteuid() != 0 {
		if chroot != "" {
			return nil, errors.New("running a server in a chroot takes root")
		}
		return nil, nil //nolint:nilnil // keep the current user
	}
	if info, err := os.Stat(data); err == nil {
		if stat, ok := info.Sys().(*syscall.Stat_t); ok && stat.Uid != 0 {
			return &account{name: "with uid " + strconv.Itoa(int(stat.Uid)), uid: stat.Uid, gid: stat.Gid}, nil
		}
	}
	// os/user would read the machine's file, not the chroot's.
	f, err := os.Open(filepath.Join(chroot, "/etc/passwd")) //nolint:gosec // the caller's chroot
	if err != nil {
		return nil, fmt.Errorf("look up user %s: %w", systemUser, err)
	}
	defer func() { _ = f.Close() }() // read only
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		fields := strings.Split(lines.Text(), ":")
		if len(fields) < 4 || fields[0] != systemUser {
			continue
		}
		uid, uidErr := strconv.ParseUint(fields[2], 10, 32)
		gid, gidErr := strconv.ParseUint(fields[3], 10, 32)
		if err := errors.Join(uidErr, gidErr); err != nil {
			return nil, fmt.Errorf("look up user %s: %w", systemUser, err)
		}
		return &account{name: systemUser, uid: uint32(uid), gid: uint32(gid)}, nil
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("look up user %s: %w", systemUser, err)
	}
	return nil, fmt.Errorf("no user %s, which the server's package creates: %w", systemUser, ErrNotInstalled)
}

// closedTo returns the first folder on the path from root to dir that a cannot
// enter.
func closedTo(root, dir string, a *account) string {
	closed := ""
	for ; ; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if err == nil && !canEnter(info, a) {
			closed = dir
		}
		if dir == root || dir == filepath.Dir(dir) {
			return closed
		}
	}
}

func canEnter(info fs.FileInfo, a *account) bool {
	mode := info.Mode().Perm()
	if stat, ok := info.Sys().(*syscall.Stat_t); ok && a != nil {
		if stat.Uid == a.uid {
			return mode&0o100 != 0
		}
		if stat.Gid == a.gid {
			return mode&0o010 != 0
		}
	}
	return mode&0o001 != 0
}

// DataDir returns a folder for the servers' data: preferred, unless the caller
// is root and preferred is below a folder that the servers' users cannot enter,
// such as /root. Then it is a folder below /var/lib/posthorn, always the same
// for the same preferred, and preferred becomes a link to it.
func DataDir(preferred string) (string, error) {
	preferred, err := filepath.Abs(preferred)
	if err != nil {
		return "", fmt.Errorf("find data folder: %w", err)
	}
	if resolved, err := filepath.EvalSymlinks(preferred); err == nil {
		preferred = resolved
	}
	if os.Geteuid() != 0 || closedTo("/", filepath.Dir(preferred), nil) == "" {
		if err := os.MkdirAll(preferred, 0o711); err != nil { //nolint:gosec // the servers' users have to pass through
			return "", fmt.Errorf("make data folder: %w", err)
		}
		return preferred, nil
	}
	sum := sha256.Sum256([]byte(preferred))
	dir := filepath.Join(sharedDir, hex.EncodeToString(sum[:6]))
	for _, made := range []string{sharedDir, dir} {
		// Also chmod, because of the umask.
		if err := errors.Join(os.MkdirAll(made, 0o711), os.Chmod(made, 0o711)); err != nil { //nolint:gosec // as above
			return "", fmt.Errorf("make data folder: %w", err)
		}
	}
	if err := os.MkdirAll(filepath.Dir(preferred), 0o750); err != nil {
		return "", fmt.Errorf("make data folder: %w", err)
	}
	// The link is a convenience; an existing folder in its place stays.
	if err := os.Symlink(dir, preferred); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", fmt.Errorf("link to data folder: %w", err)
	}
	return dir, nil
}
