package site

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// Process is a supervised process, which can be restarted when it ends, as
// systemd would do.
type Process struct {
	name  string
	make  func(start int) *exec.Cmd
	again time.Duration
	done  chan struct{}

	mu       sync.Mutex
	pid      int // 0 while it is not running
	stopping bool
	starts   int
	crashes  int
	err      error // of its last exit
}

// StartProcess starts the command for start number 1, 2 and so on. When it ends
// it is restarted after again, or not if that is 0. Its name is for errors.
func StartProcess(name string, again time.Duration, command func(start int) *exec.Cmd) (*Process, error) {
	p := &Process{name: name, make: command, again: again, done: make(chan struct{})}
	cmd, err := p.start()
	if err != nil {
		return nil, err
	}
	go p.keep(cmd)
	return p, nil
}

// start starts the process once; it returns nil if the process should stop.
func (p *Process) start() (*exec.Cmd, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stopping {
		return nil, nil //nolint:nilnil // nothing to start is not an error
	}
	p.starts++
	cmd := p.make(p.starts)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", p.name, err)
	}
	p.pid = cmd.Process.Pid
	return cmd, nil
}

// keep keeps the process running until it is stopped.
func (p *Process) keep(cmd *exec.Cmd) {
	defer close(p.done)
	for {
		err := cmd.Wait()
		p.mu.Lock()
		p.pid, p.err = 0, err
		if err != nil {
			p.crashes++
		}
		stopping := p.stopping
		p.mu.Unlock()
		if stopping || p.again == 0 {
			return
		}
		for cmd = nil; cmd == nil; {
			time.Sleep(p.again)
			if cmd, err = p.start(); cmd == nil && err == nil {
				return
			}
		}
	}
}

// PID is the process's id, 0 while it is not running.
func (p *Process) PID() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.pid
}

// Starts is how often it was started.
func (p *Process) Starts() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.starts
}

// Crashes is how often it ended with a status other than 0.
func (p *Process) Crashes() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.crashes
}

// Done is closed when it has ended permanently.
func (p *Process) Done() <-chan struct{} { return p.done }

// Err returns how it ended the last time; nil means status 0.
func (p *Process) Err() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err != nil {
		return fmt.Errorf("%s ended: %w", p.name, p.err)
	}
	return nil
}

// Signal sends the process a signal, if it is running.
func (p *Process) Signal(sig syscall.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pid == 0 {
		return nil
	}
	if err := syscall.Kill(p.pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("signal %s: %w", p.name, err)
	}
	return nil
}

// Stop stops the process permanently, as a deploy would, and kills it if it
// does not stop. Its error says so, or how it ended.
func (p *Process) Stop(ctx context.Context, within time.Duration) error {
	p.forGood()
	err := errors.Join(p.Signal(syscall.SIGCONT), p.Signal(syscall.SIGTERM))
	timer := time.NewTimer(within)
	defer timer.Stop()
	select {
	case <-p.done:
		return errors.Join(err, p.Err())
	case <-timer.C:
	case <-ctx.Done():
	}
	return errors.Join(err, fmt.Errorf("%s did not stop within %v", p.name, within), p.Kill())
}

// Kill ends the process at once and permanently.
func (p *Process) Kill() error {
	p.forGood()
	if err := p.Signal(syscall.SIGKILL); err != nil {
		return err
	}
	<-p.done
	return nil
}

func (p *Process) forGood() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stopping = true
}
