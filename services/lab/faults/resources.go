package faults

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"posthorn/services/internal/privateserver"
	"posthorn/services/lab/site"
)

// resources are rows with an abundance or a shortage of a resource.
func resources() []Scenario {
	const subscribers, fanOut = 1000, 8
	return []Scenario{
		{Name: "four relays, the leading one killed 4 times", More: []string{"relay3", "relay4"}, Inject: leaderKilled(4)},
		{Name: "API killed 15 times, with Idempotency-Key", Keyed: true, Inject: func(ctx context.Context, c *Cluster) error {
			return repeat(15, func() error {
				err := c.parts["api"].Signal(syscall.SIGKILL)
				site.Pause(ctx, 700*time.Millisecond+time.Duration(c.chance.IntN(400))*time.Millisecond)
				return err
			})
		}},
		{
			// More requests than files: with the default limit files would not run short.
			Name: "deliveries that may have 26 files open", Limits: map[string]int{"delivery": 26, "delivery2": 26},
			Env: []string{"POSTHORN_MAX_REQUESTS=100"}, Inject: fewFiles,
		},
		{Name: "a subscriber that answers 2xx with a flood", Inject: flat(Flooding)},
		{Name: "a subscriber that answers 2xx with a gzip bomb", Inject: flat(GzipBomb)},
		{
			Name: fmt.Sprintf("events of 250 KB, which is nearly the limit, 20 a second, to %d subscribers", fanOut+1), Rate: 20, Padding: 250_000,
			Prepare: crowd(fanOut, "T.1", "T.2"), Inject: wait(4 * time.Second),
		},
		{
			Name: fmt.Sprintf("%d subscribers of one type", subscribers), Rate: 3,
			Prepare: crowd(subscribers, "T.3"), Inject: wait(2 * time.Second),
		},
		{Name: "400 subscriptions made while RabbitMQ answers after 120 ms", Inject: slowlyDeclared},
		{Name: "disk of Postgres full for 8 s", Bound: inFlight, Padding: 2000, Servers: smallPostgres, Inject: func(ctx context.Context, c *Cluster) error {
			return full(ctx, filepath.Join(c.dir, "small"), func() (running bool, restart func(context.Context) error) {
				return open(c.Postgres.Done()), c.Postgres.Restart
			})
		}},
	}
}

func open(done <-chan struct{}) bool {
	select {
	case <-done:
		return false
	default:
		return true
	}
}

// leaderKilled kills the leading relay n times.
func leaderKilled(n int) func(context.Context, *Cluster) error {
	return func(ctx context.Context, c *Cluster) error {
		return repeat(n, func() error {
			var leader string
			err := site.Await(ctx, 10*time.Second, "a relay leads", func() bool {
				var err error
				leader, err = c.leader(ctx)
				return err == nil
			})
			if err != nil {
				return err
			}
			err = c.parts[leader].Signal(syscall.SIGKILL)
			site.Pause(ctx, time.Second+time.Duration(c.chance.IntN(500))*time.Millisecond)
			return err
		})
	}
}

// fewFiles makes requests hang while files are short, so that there are not
// enough for all connections: blocked requests are sent later.
func fewFiles(ctx context.Context, c *Cluster) error {
	for _, name := range []string{"delivery", "delivery2"} {
		if n := c.parts[name].Starts(); n != 1 {
			return fmt.Errorf("%s was started %d times: so few files are not enough to start with", name, n)
		}
	}
	c.Sink.Behave("victim", Hang)
	c.Sink.Behave("a", Slow)
	c.Sink.Behave("b", Slow)
	site.Pause(ctx, 6*time.Second)
	for _, name := range []string{"victim", "a", "b"} {
		c.Sink.Behave(name, Well)
	}
	if err := c.logged("short of files", ""); err != nil {
		return fmt.Errorf("files were not short: %w", err)
	}
	return nil
}

// flat makes a subscriber respond with too much data; the deliveries' memory
// must not grow.
func flat(mode Mode) func(context.Context, *Cluster) error {
	return func(ctx context.Context, c *Cluster) error {
		const spare = 64 << 20
		occupied := func() (sum int64, err error) {
			for _, name := range []string{"delivery", "delivery2"} {
				n, err := c.memory(name)
				if err != nil {
					return 0, err
				}
				sum += n
			}
			return sum, nil
		}
		before, err := occupied()
		if err != nil {
			return err
		}
		c.Sink.Behave("victim", mode)
		defer c.Sink.Behave("victim", Well)
		most := int64(0)
		err = repeat(50, func() error {
			now, err := occupied()
			most = max(most, now)
			site.Pause(ctx, 100*time.Millisecond)
			return err
		})
		if err == nil && most > before+spare {
			return fmt.Errorf("deliveries occupied %d bytes, %d before", most, before)
		}
		return err
	}
}

// crowd creates n more subscribers, and waits until the relay has seen them all.
func crowd(n int, types ...string) func(context.Context, *Cluster) error {
	return func(ctx context.Context, c *Cluster) error {
		for i := range n {
			// With long timeouts and one at a time, since all of them are on this machine.
			if err := c.subscribeWith(ctx, "crowd"+strconv.Itoa(i), "15s", 1, types...); err != nil {
				return err
			}
		}
		return site.Await(ctx, 3*within, "the relay has caught up", func() bool {
			leader, err := c.leader(ctx)
			if err != nil {
				return false
			}
			lag, err := c.metric(ctx, leader, "posthorn_relay_lag_positions")
			return err == nil && lag == 0
		})
	}
}

// slowlyDeclared creates more subscriptions than the relay can declare within
// its lease: it has to make progress nevertheless.
func slowlyDeclared(ctx context.Context, c *Cluster) error {
	c.toRabbitMQ.Delay(60 * time.Millisecond)
	defer c.toRabbitMQ.Heal()
	return crowd(400, "T.9")(ctx, c) // there are no such events; only the queues matter
}

// NotRunError says why a fault cannot be injected here.
type NotRunError struct{ Reason string }

func (e NotRunError) Error() string { return "not run here: " + e.Reason }

// small mounts a file system in memory, below dir.
func small(ctx context.Context, dir, size string) (string, func() error, error) {
	path := filepath.Join(dir, "small")
	if err := os.Mkdir(path, 0o755); err != nil { //nolint:gosec // a server's user has to pass through
		return "", nil, fmt.Errorf("make folder: %w", err)
	}
	//nolint:gosec // our own folder
	out, err := exec.CommandContext(ctx, "mount", "-t", "tmpfs", "-o", "mode=0755,size="+size, "tmpfs", path).CombinedOutput()
	if err != nil {
		return "", nil, NotRunError{fmt.Sprintf("it takes a small file system, which may not be mounted here: %v: %s", err, out)}
	}
	return path, func() error {
		//nolint:gosec // as above
		if out, err := exec.CommandContext(context.WithoutCancel(ctx), "umount", path).CombinedOutput(); err != nil {
			return fmt.Errorf("unmount: %w: %s", err, out)
		}
		return nil
	}, nil
}

func smallPostgres(ctx context.Context, dir string) (*site.Servers, func() error, error) {
	return onSmall(ctx, dir, "400m", func(path string) (*site.Servers, error) {
		return site.Start(ctx, privateserver.Options{Dir: filepath.Join(path, "postgres")}, privateserver.Options{Dir: filepath.Join(dir, "rabbitmq")})
	})
}

func onSmall(ctx context.Context, dir, size string, start func(path string) (*site.Servers, error)) (*site.Servers, func() error, error) {
	path, unmount, err := small(ctx, dir, size)
	if err != nil {
		return nil, nil, err
	}
	servers, err := start(path)
	if err != nil {
		return nil, nil, errors.Join(err, unmount())
	}
	//nolint:contextcheck // has to happen whatever ended
	return servers, func() error {
		// A kill keeps the folder locked for a restart; a stop after it releases it.
		return errors.Join(servers.Kill(), servers.Postgres.Stop(ctx), servers.RabbitMQ.Stop(ctx), unmount())
	}, nil
}

// full fills a file system and frees it again after some seconds. A server that
// did not survive is restarted, as a supervisor would do.
func full(ctx context.Context, dir string, server func() (running bool, restart func(context.Context) error)) (err error) {
	path := filepath.Join(dir, "ballast")
	ballast, err := os.Create(path) //nolint:gosec // our own folder
	if err != nil {
		return fmt.Errorf("make ballast: %w", err)
	}
	begun := time.Now()
	chunk := make([]byte, 64<<10)
	filled := false
	for time.Since(begun) < 8*time.Second {
		// Space that the server frees is taken too.
		if _, err := ballast.Write(chunk); err == nil {
			continue
		} else if !errors.Is(err, syscall.ENOSPC) {
			return errors.Join(fmt.Errorf("fill: %w", err), ballast.Close())
		}
		filled = true
		site.Pause(ctx, 20*time.Millisecond)
	}
	err = errors.Join(ballast.Close(), os.Remove(path))
	if !filled {
		err = errors.Join(err, errors.New("the file system was not filled"))
	}
	site.Pause(ctx, time.Second)
	if running, restart := server(); !running {
		err = errors.Join(err, restart(ctx))
	}
	return err
}
