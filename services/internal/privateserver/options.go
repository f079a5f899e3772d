package privateserver

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Options says where and how a server runs. Only Dir is required.
type Options struct {
	// Dir is the server's folder, created if missing. Each server needs its
	// own. For root, other users must be able to pass through the path; see
	// DataDir.
	Dir string
	// Port is the preferred port: if it is not free, another is used. 0 picks
	// one.
	Port int
	// ManagementPort is the same for RabbitMQ's web page.
	ManagementPort int
	// Settings are added to the server's configuration, with the names of
	// postgresql.conf or rabbitmq.conf. They override ours.
	Settings map[string]string
	// BinDir is where the server's programs are; empty means search.
	BinDir string
	// Chroot runs the programs of another root file system, for versions other
	// than the machine's. Dir has to be in it, and only root can use it.
	Chroot string
	// Join makes a RabbitMQ a further node of another's cluster. The other one
	// has the epmd of all, so it has to outlive them.
	Join *RabbitMQ
	// Logger logs; nil means slog.DiscardHandler.
	Logger *slog.Logger
	// Progress is called with a description of the step that a start is waiting for.
	Progress func(step string)
}

// home is the folder of a server, as seen from both sides of a chroot.
type home struct {
	dir     string
	chroot  string
	account *account
	logger  *slog.Logger
	tell    func(string)
}

// open prepares the folder for a server that runs as the user systemUser. data
// is the folder below it that the server itself owns.
func (o Options) open(systemUser, data string) (*home, error) {
	if o.Dir == "" {
		return nil, errors.New("no folder given")
	}
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return nil, fmt.Errorf("find folder: %w", err)
	}
	if err := os.MkdirAll(dir, 0o711); err != nil { //nolint:gosec // the server's user has to pass through
		return nil, fmt.Errorf("make folder: %w", err)
	}
	// Processes are recognised by their working directory, which is free of links.
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		return nil, fmt.Errorf("find folder: %w", err)
	}
	h := &home{dir: dir, logger: o.Logger, tell: o.Progress}
	if h.logger == nil {
		h.logger = slog.New(slog.DiscardHandler)
	}
	if h.tell == nil {
		h.tell = func(string) {}
	}
	if o.Chroot != "" {
		if h.chroot, err = filepath.Abs(o.Chroot); err != nil {
			return nil, fmt.Errorf("find chroot: %w", err)
		}
		if h.chroot, err = filepath.EvalSymlinks(h.chroot); err != nil {
			return nil, fmt.Errorf("find chroot: %w", err)
		}
		if !strings.HasPrefix(dir, h.chroot+"/") {
			return nil, fmt.Errorf("folder %s is not in the chroot %s", dir, h.chroot)
		}
	}
	if h.account, err = accountFor(h.chroot, systemUser, filepath.Join(dir, data)); err != nil {
		return nil, err
	}
	if h.account != nil {
		if err := os.Chmod(dir, 0o711); err != nil { //nolint:gosec // as above
			return nil, fmt.Errorf("open folder to the server's user: %w", err)
		}
		if closed := closedTo(h.chroot, dir, h.account); closed != "" {
			return nil, fmt.Errorf("the user %s, which the server runs as when root starts it, cannot pass through %s: "+
				"keep the data elsewhere (DataDir finds a place), start it as another user than root, or run chmod a+x %s", h.account.name, closed, closed)
		}
	}
	return h, nil
}

// inside returns a path as the server sees it.
func (h *home) inside(path string) string {
	return strings.TrimPrefix(path, h.chroot)
}

// mkdir creates a folder that belongs to the server's user.
func (h *home) mkdir(path string) error {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return err
	}
	return h.give(path)
}

// writeFile writes a file that only the server's user can read.
func (h *home) writeFile(path, content string) error {
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil { //nolint:gosec // in the server's folder
		return err
	}
	return h.give(path)
}

func (h *home) give(path string) error {
	if h.account == nil {
		return nil
	}
	return os.Lchown(path, int(h.account.uid), int(h.account.gid))
}

// find returns the folder of the first program that exists, as seen from inside.
func (h *home) find(program string, patterns ...string) (string, error) {
	for _, pattern := range patterns {
		found, err := filepath.Glob(filepath.Join(h.chroot, pattern, program))
		if err != nil {
			return "", fmt.Errorf("look for %s: %w", program, err)
		}
		if len(found) > 0 {
			slices.SortFunc(found, byVersion)
			return filepath.Dir(h.inside(found[len(found)-1])), nil
		}
	}
	return "", fmt.Errorf("%s: %w", program, ErrNotInstalled)
}

// byVersion orders paths so that .../9.6/... comes before .../15/....
func byVersion(a, b string) int {
	for {
		i := 0
		for i < len(a) && i < len(b) && a[i] == b[i] && !isDigit(a[i]) {
			i++
		}
		a, b = a[i:], b[i:]
		na, nb := digits(a), digits(b)
		if na == "" || nb == "" {
			return strings.Compare(a, b)
		}
		if len(na) != len(nb) {
			return len(na) - len(nb)
		}
		if c := strings.Compare(na, nb); c != 0 {
			return c
		}
		a, b = a[len(na):], b[len(nb):]
	}
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

func digits(s string) string {
	return s[:len(s)-len(strings.TrimLeft(s, "0123456789"))]
}

// merged returns the defaults overridden by the caller's settings, in order.
func merged(defaults, settings map[string]string) (keys []string, all map[string]string) {
	all = maps.Clone(defaults)
	maps.Copy(all, settings)
	return slices.Sorted(maps.Keys(all)), all
}
