package bench

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"posthorn/services/internal/postgres"
	"posthorn/services/internal/privateserver"
)

// Site is what all scenarios share: the servers, and the receiver in a process
// of its own.
type Site struct {
	Postgres *privateserver.Postgres
	RabbitMQ *privateserver.RabbitMQ

	config   SiteConfig
	receiver *child
	// deliveries and control are the receiver's addresses.
	deliveries, control string
	databases           atomic.Int64
}

// SiteConfig says where a site is.
type SiteConfig struct {
	// Dir is for the servers' data and for logs; other users have to be able to
	// pass through.
	Dir string
	// Binary is the command posthorn.
	Binary string
	// Receiver is the command that runs a Receiver until its standard input
	// ends, and first prints the two addresses on a line.
	Receiver []string
	// Profiles is a folder for CPU profiles; none are taken where it is empty.
	Profiles string
	// Progress is told what is happening.
	Progress func(format string, args ...any)
}

// NewSite starts servers, durable ones, and the receiver.
func NewSite(ctx context.Context, config SiteConfig) (_ *Site, err error) {
	s := &Site{config: config}
	defer func() { //nolint:contextcheck // has to happen whatever ended
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	s.Postgres, err = privateserver.StartPostgres(ctx, privateserver.Options{
		Dir: filepath.Join(config.Dir, "postgres"),
		Settings: map[string]string{
			// As whoever sets up a server would; fsync and synchronous_commit
			// stay on.
			"shared_buffers": "512MB", "max_wal_size": "4GB", "max_connections": "200",
		},
	})
	if err != nil {
		return nil, err
	}
	s.RabbitMQ, err = privateserver.StartRabbitMQ(ctx, privateserver.Options{
		Dir:      filepath.Join(config.Dir, "rabbitmq"),
		Settings: map[string]string{"vm_memory_high_watermark.absolute": "4GB", "disk_free_limit.absolute": "50MB"},
	})
	if err != nil {
		return nil, err
	}
	//nolint:gosec,noctx // the caller's own command; ended by Close
	cmd := exec.Command(config.Receiver[0], config.Receiver[1:]...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("start receiver: %w", err)
	}
	if _, err := cmd.StdinPipe(); err != nil { // it ends with us
		return nil, fmt.Errorf("start receiver: %w", err)
	}
	cmd.Stderr = os.Stderr
	if s.receiver, err = startChild(cmd); err != nil {
		return nil, fmt.Errorf("start receiver: %w", err)
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

// Close ends everything; the servers' data are not wanted any more.
func (s *Site) Close() error {
	var errs []error
	if s.receiver != nil {
		errs = append(errs, s.receiver.kill())
	}
	if s.RabbitMQ != nil {
		errs = append(errs, s.RabbitMQ.Kill())
	}
	if s.Postgres != nil {
		errs = append(errs, s.Postgres.Kill())
	}
	return errors.Join(errs...)
}

// child is a process in a group of its own, so that Ctrl-C is ours to handle.
type child struct {
	cmd  *exec.Cmd
	done chan struct{}
	err  error
}

func startChild(cmd *exec.Cmd) (*child, error) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	c := &child{cmd: cmd, done: make(chan struct{})}
	go func() {
		defer close(c.done)
		c.err = cmd.Wait()
	}()
	return c, nil
}

func (c *child) pid() int { return c.cmd.Process.Pid }

// stop asks the process to end.
func (c *child) stop(within time.Duration) error {
	if err := c.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop %s: %w", c.cmd.Path, err)
	}
	timer := time.NewTimer(within)
	defer timer.Stop()
	select {
	case <-c.done:
		if c.err != nil {
			return fmt.Errorf("%s ended: %w", c.cmd.Path, c.err)
		}
		return nil
	case <-timer.C:
		return errors.Join(fmt.Errorf("%s did not stop within %v", c.cmd.Path, within), c.kill())
	}
}

func (c *child) kill() error {
	if err := c.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("end %s: %w", c.cmd.Path, err)
	}
	<-c.done
	return nil
}

// Expect makes the receiver forget what came, and expect events with numbers
// below n.
func (s *Site) Expect(ctx context.Context, n int) error {
	return call(ctx, http.MethodPost, "http://"+s.control+"/expect/"+strconv.Itoa(n), nil, nil)
}

// Tally is what the receiver counted since.
func (s *Site) Tally(ctx context.Context) (*Tally, error) {
	tally := &Tally{}
	return tally, call(ctx, http.MethodGet, "http://"+s.control+"/tally", nil, tally)
}

// Await waits until n deliveries have arrived in all, or until none has for a
// while.
func (s *Site) Await(ctx context.Context, n int, patience time.Duration) error {
	var last int
	for changed := time.Now(); ; {
		var arrived int
		if err := call(ctx, http.MethodGet, "http://"+s.control+"/count", nil, &arrived); err != nil {
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

// newDatabase makes an empty database and returns its name and its address.
func (s *Site) newDatabase(ctx context.Context) (name, address string, err error) {
	admin, err := postgres.Open(s.Postgres.URL(), "bench", 1)
	if err != nil {
		return "", "", err
	}
	defer func() { err = errors.Join(err, admin.Close()) }()
	name = fmt.Sprintf("bench%d", s.databases.Add(1))
	if _, err := admin.ExecContext(ctx, "CREATE DATABASE "+name); err != nil {
		return "", "", fmt.Errorf("create database: %w", err)
	}
	return name, strings.Replace(s.Postgres.URL(), "/posthorn?", "/"+name+"?", 1), nil
}

func (s *Site) dropDatabase(ctx context.Context, name string) error {
	admin, err := postgres.Open(s.Postgres.URL(), "bench", 1)
	if err != nil {
		return err
	}
	if _, err = admin.ExecContext(ctx, "DROP DATABASE "+name+" WITH (FORCE)"); err != nil {
		err = fmt.Errorf("drop database: %w", err)
	}
	return errors.Join(err, admin.Close())
}

// newVhost makes a part of the broker that can be thrown away with all that is
// in it.
func (s *Site) newVhost(ctx context.Context, name string) (address string, err error) {
	err = errors.Join(
		call(ctx, http.MethodPut, s.management("/api/vhosts/"+name), map[string]string{}, nil),
		call(ctx, http.MethodPut, s.management("/api/permissions/"+name+"/"+s.RabbitMQ.User()),
			map[string]string{"configure": ".*", "write": ".*", "read": ".*"}, nil))
	return strings.TrimSuffix(s.RabbitMQ.URL(), "/") + "/" + name, err
}

func (s *Site) dropVhost(ctx context.Context, name string) error {
	return call(ctx, http.MethodDelete, s.management("/api/vhosts/"+name), nil, nil)
}

func (s *Site) management(path string) string {
	u, err := url.Parse(s.RabbitMQ.ManagementURL())
	if err != nil {
		return path // asking there says what is wrong
	}
	u.User, u.Path = url.UserPassword(s.RabbitMQ.User(), s.RabbitMQ.Password()), path
	return u.String()
}

// call sends a request as JSON and reads the answer.
func call(ctx context.Context, method, address string, body, answer any) error {
	text, err := json.Marshal(body)
	if err != nil {
		return fmt.Errorf("encode request: %w", err)
	}
	request, err := http.NewRequestWithContext(ctx, method, address, strings.NewReader(string(text)))
	if err != nil {
		return fmt.Errorf("make request: %w", err)
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, request.URL.Redacted(), err)
	}
	defer func() { _ = response.Body.Close() }() // read to its end
	text, err = io.ReadAll(response.Body)
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, request.URL.Redacted(), err)
	}
	if response.StatusCode/100 != 2 {
		return fmt.Errorf("%s %s: status %d: %s", method, request.URL.Redacted(), response.StatusCode, text)
	}
	if answer == nil {
		return nil
	}
	if err := json.Unmarshal(text, answer); err != nil {
		return fmt.Errorf("%s %s: decode answer: %w", method, request.URL.Redacted(), err)
	}
	return nil
}
