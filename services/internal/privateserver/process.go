package privateserver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	pollEvery = 20 * time.Millisecond
	// killTimeout bounds the wait for processes that got SIGKILL.
	killTimeout = 10 * time.Second
	// leftoverTimeout is how long a server whose starter died may take to stop.
	leftoverTimeout = 30 * time.Second
	// logLimit is the size at which a log is truncated instead of continued.
	logLimit = 10 << 20
	// logTail is how much of a log goes into an error.
	logTail = 2000
)

// process is a child with its own process group.
type process struct {
	pid    int
	dir    string
	family []string
	done   chan struct{}
}

// command is the command of a process. All paths are as seen from inside the chroot.
type command struct {
	path string
	args []string
	env  []string
	// dir is the working directory, which identifies a leftover.
	dir string
	// family are the names of the processes that it starts in dir and that may
	// briefly outlive it.
	family []string
	// deathSignal is sent to the process when we are killed.
	deathSignal syscall.Signal
	output      io.Writer
}

// prepare returns a command that ends with ctx.
func (h *home) prepare(ctx context.Context, c command) *exec.Cmd {
	cmd := exec.CommandContext(ctx, c.path, c.args...) //nolint:gosec // programs of the servers, found or given
	cmd.Dir = c.dir
	cmd.Env = append([]string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/opt/homebrew/sbin:/opt/homebrew/bin",
		"LANG=C.UTF-8", "LC_ALL=C.UTF-8",
	}, c.env...)
	cmd.Stdout, cmd.Stderr = c.output, c.output
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Chroot: h.chroot}
	setDeathSignal(cmd.SysProcAttr, c.deathSignal)
	if h.account != nil {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: h.account.uid, Gid: h.account.gid}
	}
	return cmd
}

// start runs a command that outlives ctx.
func (h *home) start(ctx context.Context, c command) (*process, error) {
	cmd := h.prepare(context.WithoutCancel(ctx), c)
	p := &process{dir: filepath.Join(h.chroot, c.dir), family: c.family, done: make(chan struct{})}
	started := make(chan error, 1)
	go func() {
		// The death signal is sent when the thread that forked ends, not the
		// process: this thread stays until the child has ended.
		runtime.LockOSThread()
		err := cmd.Start()
		if err == nil {
			p.pid = cmd.Process.Pid
		}
		started <- err
		if err == nil {
			_ = cmd.Wait() // how it ended is in its log
			close(p.done)
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", filepath.Base(c.path), err)
	}
	return p, nil
}

// run runs a command to its end and includes its output in the error.
func (h *home) run(ctx context.Context, c command, stdin io.Reader) (string, error) {
	var stdout, stderr strings.Builder
	cmd := h.prepare(ctx, c)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, &stdout, &stderr
	cmd.WaitDelay = time.Second
	// The death signal follows the thread, see start.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("run %s %s: %w: %s", filepath.Base(c.path), strings.Join(c.args, " "), err, tail(stderr.String()+stdout.String()))
	}
	return stdout.String(), nil
}

func (p *process) running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// stop sends sig and waits. If ctx ends first, the process is killed, which is
// an error.
func (p *process) stop(ctx context.Context, sig syscall.Signal) error {
	if !p.running() {
		return p.awaitFamily(ctx)
	}
	if err := syscall.Kill(p.pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("signal pid %d: %w", p.pid, err)
	}
	select {
	case <-p.done:
		return p.awaitFamily(ctx)
	case <-ctx.Done():
		return errors.Join(fmt.Errorf("pid %d did not stop in time and was killed: %w", p.pid, ctx.Err()), p.kill(ctx))
	}
}

// kill ends the process and all its children with SIGKILL, even if ctx has
// ended.
func (p *process) kill(ctx context.Context) error {
	if p == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), killTimeout)
	defer cancel()
	if !p.running() {
		return p.awaitFamily(ctx)
	}
	// While stopped, it can neither start another child nor notice that one died.
	if err := syscall.Kill(p.pid, syscall.SIGSTOP); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("stop pid %d: %w", p.pid, err)
	}
	tree := descendants(p.pid)
	for _, pid := range append([]int{p.pid}, tree...) {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("kill pid %d: %w", pid, err)
		}
	}
	select {
	case <-p.done:
	case <-ctx.Done():
		return fmt.Errorf("pid %d outlived SIGKILL", p.pid)
	}
	return errors.Join(awaitGone(ctx, tree), p.awaitFamily(ctx))
}

// awaitFamily waits for the children of an ended process, which end by
// themselves a moment later.
func (p *process) awaitFamily(ctx context.Context) error {
	return wrap("wait for the server's children", poll(ctx, func() (bool, error) {
		return len(namesakes(p.dir, p.family)) == 0, nil
	}))
}

func awaitGone(ctx context.Context, pids []int) error {
	return poll(ctx, func() (bool, error) {
		return !slices.ContainsFunc(pids, alive), nil
	})
}

// poll calls done until it returns true or fails.
func poll(ctx context.Context, done func() (bool, error)) error {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		ok, err := done()
		if err != nil || ok {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// clearLeftover ends a process whose pid was recorded in the folder by a
// program that has died since. It returns once that process is gone, or if its
// working directory shows that it is not one of ours.
func clearLeftover(ctx context.Context, h *home, pidFile, dir string, sig syscall.Signal) error {
	pid, err := readPID(pidFile)
	if err != nil || pid == 0 {
		return err
	}
	if alive(pid) && worksIn(pid, dir) {
		h.logger.InfoContext(ctx, "stopping a server left behind", "dir", dir, "pid", pid)
		tree := append(descendants(pid), pid)
		if err := syscall.Kill(pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("stop leftover pid %d: %w", pid, err)
		}
		waiting, cancel := context.WithTimeout(ctx, leftoverTimeout)
		defer cancel()
		if awaitGone(waiting, tree) != nil {
			if err := ctx.Err(); err != nil {
				return err
			}
			for _, pid := range tree {
				if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
					return fmt.Errorf("kill leftover pid %d: %w", pid, err)
				}
			}
			killed, cancel := context.WithTimeout(ctx, killTimeout)
			defer cancel()
			if err := awaitGone(killed, tree); err != nil {
				return fmt.Errorf("wait for leftover pid %d: %w", pid, err)
			}
		}
	}
	if err := os.Remove(pidFile); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove stale pid file: %w", err)
	}
	return nil
}

// readPID returns 0 if no process is recorded.
func readPID(path string) (int, error) {
	content, err := os.ReadFile(path) //nolint:gosec // in the server's folder
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read pid file: %w", err)
	}
	first, _, _ := strings.Cut(string(content), "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(first))
	if err != nil || pid < 1 {
		return 0, nil //nolint:nilerr // cut short by a crash: records nothing
	}
	return pid, nil
}

// openLog opens the server's log and returns the offset where new output begins.
func (h *home) openLog() (*os.File, int64, error) {
	path := filepath.Join(h.dir, "server.log")
	flags := os.O_CREATE | os.O_WRONLY | os.O_APPEND
	if info, err := os.Stat(path); err == nil && info.Size() > logLimit {
		flags |= os.O_TRUNC
	}
	f, err := os.OpenFile(path, flags, 0o600) //nolint:gosec // in the server's folder
	if err != nil {
		return nil, 0, fmt.Errorf("open log: %w", err)
	}
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, 0, errors.Join(fmt.Errorf("open log: %w", err), f.Close())
	}
	return f, end, nil
}

// logSince returns the log from an offset.
func (h *home) logSince(from int64) string {
	f, err := os.Open(filepath.Join(h.dir, "server.log"))
	if err != nil {
		return err.Error()
	}
	defer func() { _ = f.Close() }() // read only
	content, err := io.ReadAll(io.NewSectionReader(f, from, logLimit))
	if err != nil {
		return err.Error()
	}
	return string(content)
}

// tail returns the end of a program's output, in whole lines.
func tail(said string) string {
	said = strings.TrimSpace(said)
	if len(said) <= logTail {
		return said
	}
	said = said[len(said)-logTail:]
	if _, rest, found := strings.Cut(said, "\n"); found {
		return rest
	}
	return said
}
