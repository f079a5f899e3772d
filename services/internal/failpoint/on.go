//go:build failpoints

package failpoint

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// point is the action at one name, at the hit that brings left to zero.
type point struct {
	left atomic.Int64
	act  func()
}

var armed atomic.Pointer[map[string]*point] //nolint:gochecknoglobals // a place in the code has no other access to it

// Arm replaces the armed points.
func Arm(text string) error {
	points := map[string]*point{}
	for _, one := range strings.Split(text, ";") {
		if one = strings.TrimSpace(one); one == "" {
			continue
		}
		name, action, ok := strings.Cut(one, "=")
		if !ok {
			return fmt.Errorf("failpoint %q: want name=action@hit", one)
		}
		action, at, counted := strings.Cut(action, "@")
		n := 1
		if counted {
			var err error
			if n, err = strconv.Atoi(at); err != nil || n < 1 {
				return fmt.Errorf("failpoint %q: invalid hit number %q", one, at)
			}
		}
		p := &point{}
		p.left.Store(int64(n))
		switch kind, arg, _ := strings.Cut(action, ":"); kind {
		case "kill":
			p.act = func() { signal(syscall.SIGKILL) }
		case "stop":
			p.act = func() { signal(syscall.SIGSTOP) }
		case "sleep":
			d, err := time.ParseDuration(arg)
			if err != nil {
				return fmt.Errorf("failpoint %q: %w", one, err)
			}
			p.act = func() { time.Sleep(d) }
		default:
			return fmt.Errorf("failpoint %q: %q is neither kill, stop nor sleep", one, kind)
		}
		points[name] = p
	}
	armed.Store(&points)
	return nil
}

// signal sends this process a signal that it cannot handle, and does not return
// before it has taken effect.
func signal(sig syscall.Signal) {
	_ = syscall.Kill(os.Getpid(), sig) // to ourselves: it cannot fail
	if sig == syscall.SIGKILL {
		select {}
	}
}

// Hit performs the action armed for the name, once, at its hit.
func Hit(name string) {
	points := armed.Load()
	if points == nil {
		return
	}
	if p, ok := (*points)[name]; ok && p.left.Add(-1) == 0 {
		p.act()
	}
}
