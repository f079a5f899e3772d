package bench

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"posthorn/services/internal/privateserver"
	"posthorn/services/lab/site"
)

// Site has the parts that all scenarios share: the servers, and the receiver in
// a separate process.
type Site struct {
	*site.Servers

	config   SiteConfig
	receiver *site.Process
	// deliveries and control are the receiver's addresses.
	deliveries, control string
	number              atomic.Int64
}

// SiteConfig configures a site.
type SiteConfig struct {
	// Dir is for the servers' data and for logs; other users must be able to
	// pass through it.
	Dir string
	// Chroot is a folder with the root file system whose servers are measured;
	// those of this machine if empty. Dir lies in it.
	Chroot string
	// Binary is the command posthorn.
	Binary string
	// Receiver is the command that runs a Receiver until its standard input
	// ends, and first prints the two addresses on a line.
	Receiver []string
	// Profiles is a folder for CPU profiles; if empty, none are taken.
	Profiles string
	// Progress reports progress.
	Progress func(format string, args ...any)
}

// NewSite starts durable servers and the receiver.
func NewSite(ctx context.Context, config SiteConfig) (_ *Site, err error) {
	s := &Site{config: config}
	defer func() { //nolint:contextcheck // must run even if ctx has ended
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	s.Servers, err = site.Start(ctx, privateserver.Options{
		Dir: filepath.Join(config.Dir, "postgres"), Chroot: config.Chroot,
		Settings: map[string]string{
			// As an administrator would set up a server; fsync and
			// synchronous_commit stay on.
			"shared_buffers": "512MB", "max_wal_size": "4GB", "max_connections": "200",
		},
	}, privateserver.Options{
		Dir: filepath.Join(config.Dir, "rabbitmq"), Chroot: config.Chroot,
		Settings: map[string]string{"vm_memory_high_watermark.absolute": "4GB"},
	})
	if err != nil {
		return nil, err
	}
	out, err := s.startReceiver()
	if err != nil {
		return nil, err
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return nil, fmt.Errorf("read the receiver's addresses: %w", err)
	}
	var ok bool
	if s.deliveries, s.control, ok = strings.Cut(strings.TrimSpace(line), " "); !ok {
		return nil, fmt.Errorf("read the receiver's addresses: %q", line)
	}
	return s, nil
}

// startReceiver starts the receiver, which ends with us, and returns its
// output.
func (s *Site) startReceiver() (io.Reader, error) {
	//nolint:gosec,noctx // the caller's own command; ended by Close
	cmd := exec.Command(s.config.Receiver[0], s.config.Receiver[1:]...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("start receiver: %w", err)
	}
	if _, err := cmd.StdinPipe(); err != nil {
		return nil, fmt.Errorf("start receiver: %w", err)
	}
	cmd.Stderr = os.Stderr
	s.receiver, err = site.StartProcess("receiver", 0, func(int) *exec.Cmd { return cmd })
	return out, err
}

// Close ends everything; the servers' data is no longer needed.
func (s *Site) Close() error {
	var errs []error
	if s.receiver != nil {
		errs = append(errs, s.receiver.Kill())
	}
	if s.Servers != nil {
		errs = append(errs, s.Kill())
	}
	return errors.Join(errs...)
}

// Expect resets the receiver, which then expects events with numbers below n.
func (s *Site) Expect(ctx context.Context, n int) error {
	return site.Call(ctx, http.MethodPost, "http://"+s.control+"/expect/"+strconv.Itoa(n), nil, nil)
}

// Tally returns the receiver's counts since Expect.
func (s *Site) Tally(ctx context.Context) (*Tally, error) {
	tally := &Tally{}
	return tally, site.Call(ctx, http.MethodGet, "http://"+s.control+"/tally", nil, tally)
}

// Await waits until n deliveries have arrived in total, or until none has for a
// while.
func (s *Site) Await(ctx context.Context, n int, patience time.Duration) error {
	var last int
	for changed := time.Now(); ; {
		var arrived int
		if err := site.Call(ctx, http.MethodGet, "http://"+s.control+"/count", nil, &arrived); err != nil {
			return err
		}
		if arrived >= n {
			return nil
		}
		if arrived != last {
			last, changed = arrived, time.Now()
		}
		if time.Since(changed) > patience {
			return fmt.Errorf("%w: %d of %d arrived, and none for %v", ErrIncorrect, arrived, n, patience)
		}
		if err := pauseUntil(ctx, time.Now().Add(20*time.Millisecond)); err != nil {
			return err
		}
	}
}

// newName returns a name for a database and a virtual host.
func (s *Site) newName() string { return fmt.Sprintf("bench%d", s.number.Add(1)) }
