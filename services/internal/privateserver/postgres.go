package privateserver

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	// owner is the superuser of the cluster and the account of the broker.
	owner = "posthorn"
	// startTries is how often a start tries again when its ports are taken
	// meanwhile.
	startTries = 5
)

// Postgres is a private cluster that accepts connections on 127.0.0.1, without
// unix sockets. Its methods are safe to call from several goroutines.
type Postgres struct {
	home     *home
	bin      string
	data     string
	port     int
	password string
	settings map[string]string
	lock     *lock

	mu      sync.Mutex
	process *process
}

// StartPostgres starts the cluster in o.Dir, created if there is none: UTF8,
// locale C.UTF-8, scram passwords, one superuser and one database, both named
// posthorn. It returns once connections are accepted. ctx bounds the start, not
// the server's life.
func StartPostgres(ctx context.Context, o Options) (_ *Postgres, err error) {
	h, err := o.open("postgres", "data")
	if err != nil {
		return nil, fmt.Errorf("start postgres: %w", err)
	}
	pg := &Postgres{home: h, bin: o.BinDir, data: filepath.Join(h.dir, "data"), settings: maps.Clone(o.Settings)}
	if pg.lock, err = h.lock(); err != nil {
		return nil, fmt.Errorf("start postgres: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("start postgres: %w", err), pg.lock.release())
		}
	}()
	if pg.bin == "" {
		if pg.bin, err = pg.findBin(); err != nil {
			return nil, err
		}
	}
	if err := clearLeftover(ctx, h, filepath.Join(pg.data, "postmaster.pid"), pg.data, syscall.SIGINT); err != nil {
		return nil, err
	}
	if pg.password, err = h.password(); err != nil {
		return nil, err
	}
	if err := pg.init(ctx); err != nil {
		return nil, err
	}
	wanted, tried := o.Port, ports{}
	for try := 1; ; try++ {
		if pg.port, err = tried.pick(ctx, wanted); err != nil {
			return nil, err
		}
		if err = pg.start(ctx); !errors.Is(err, errPortTaken) || try == startTries {
			break
		}
		wanted = 0
	}
	if err != nil {
		return nil, err
	}
	return pg, nil
}

// findBin returns the newest version's programs, or those of the version that
// created the data.
func (pg *Postgres) findBin() (string, error) {
	const debian = "/usr/lib/postgresql"
	version, err := os.ReadFile(filepath.Join(pg.data, "PG_VERSION"))
	if err == nil {
		v := strings.TrimSpace(string(version))
		bin, err := pg.home.find("postgres", filepath.Join(debian, v, "bin"), "/usr/pgsql-"+v+"/bin", "/opt/homebrew/opt/postgresql@"+v+"/bin", "/usr/local/opt/postgresql@"+v+"/bin", "/usr/local/bin", "/usr/bin")
		if err != nil {
			return "", fmt.Errorf("the data in %s are of version %s: %w", pg.data, v, err)
		}
		return bin, nil
	}
	return pg.home.find("postgres", filepath.Join(debian, "*/bin"), "/usr/pgsql-*/bin", "/opt/homebrew/opt/postgresql@*/bin", "/usr/local/opt/postgresql@*/bin", "/usr/local/bin", "/usr/bin")
}

// init creates the cluster and its database. It moves the cluster into place
// only once it is complete, so that an interrupted init starts over.
func (pg *Postgres) init(ctx context.Context) error {
	h := pg.home
	if _, err := os.Stat(filepath.Join(pg.data, "PG_VERSION")); err == nil {
		return nil
	}
	h.tell("creating a Postgres cluster")
	h.logger.InfoContext(ctx, "creating a postgres cluster", "dir", h.dir)
	fresh := filepath.Join(h.dir, "data.new")
	if err := os.RemoveAll(fresh); err != nil {
		return fmt.Errorf("remove half-made cluster: %w", err)
	}
	if err := h.mkdir(fresh); err != nil {
		return fmt.Errorf("make cluster: %w", err)
	}
	secret := filepath.Join(h.dir, "initdb-password")
	if err := h.writeFile(secret, pg.password+"\n"); err != nil {
		return fmt.Errorf("make cluster: %w", err)
	}
	defer func() { _ = os.Remove(secret) }() // contains only the password in the file beside it
	args := []string{
		"--pgdata=" + h.inside(fresh), "--username=" + owner, "--pwfile=" + h.inside(secret),
		"--auth=scram-sha-256", "--encoding=UTF8", "--locale=C.UTF-8", "--no-instructions",
	}
	if pg.settings["fsync"] == "off" {
		args = append(args, "--no-sync")
	}
	_, err := h.run(ctx, command{
		path: filepath.Join(pg.bin, "initdb"), args: args, dir: h.inside(fresh), deathSignal: syscall.SIGTERM,
	}, nil)
	if err != nil {
		return fmt.Errorf("make cluster: %w", err)
	}
	// Single-user mode needs no port and no driver.
	_, err = h.run(ctx, command{
		path:        filepath.Join(pg.bin, "postgres"),
		args:        []string{"--single", "-D", h.inside(fresh), "postgres"},
		dir:         h.inside(fresh),
		deathSignal: syscall.SIGTERM,
	}, strings.NewReader("CREATE DATABASE "+owner+";\n"))
	if err != nil {
		return fmt.Errorf("make database: %w", err)
	}
	if err := os.Rename(fresh, pg.data); err != nil {
		return fmt.Errorf("make cluster: %w", err)
	}
	return nil
}

// start runs the postmaster on the configured port, and returns once it is ready.
func (pg *Postgres) start(ctx context.Context) (err error) {
	h := pg.home
	log, from, err := h.openLog()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, log.Close()) }() // the server has it open for itself
	keys, settings := merged(map[string]string{
		"listen_addresses":        "127.0.0.1",
		"unix_socket_directories": "",
		"max_connections":         "200",
		"cluster_name":            owner,
		"logging_collector":       "off",
	}, pg.settings)
	args := []string{"-D", h.inside(pg.data), "-p", strconv.Itoa(pg.port)}
	for _, key := range keys {
		args = append(args, "-c", key+"="+settings[key])
	}
	h.tell("starting Postgres")
	begun := time.Now()
	p, err := h.start(ctx, command{
		path: filepath.Join(pg.bin, "postgres"), args: args, dir: h.inside(pg.data), output: log,
		deathSignal: syscall.SIGINT, // fast shutdown
		family:      []string{"postgres"},
	})
	if err != nil {
		return err
	}
	if err := poll(ctx, func() (bool, error) {
		if !p.running() {
			return false, errExited
		}
		return pg.ready(p.pid), nil
	}); err != nil {
		said := h.logSince(from)
		if p.running() {
			err = errors.Join(err, p.kill(ctx))
		} else if strings.Contains(said, "could not bind") {
			err = errPortTaken
		}
		return fmt.Errorf("%w: %s", err, tail(said))
	}
	pg.process = p
	h.logger.InfoContext(ctx, "postgres is ready", "port", pg.port, "pid", p.pid, "dir", h.dir, "duration_ms", time.Since(begun).Milliseconds())
	return nil
}

// ready checks the eighth line of postmaster.pid, as pg_ctl does.
func (pg *Postgres) ready(pid int) bool {
	content, err := os.ReadFile(filepath.Join(pg.data, "postmaster.pid"))
	if err != nil {
		return false
	}
	lines := strings.Split(string(content), "\n")
	return len(lines) >= 8 && lines[0] == strconv.Itoa(pid) && strings.TrimSpace(lines[7]) == "ready"
}

// URL is the address of the database posthorn, with its password. It stays the
// same across Restart.
func (pg *Postgres) URL() string {
	u := url.URL{
		Scheme: "postgres", User: url.UserPassword(owner, pg.password), Host: address(pg.port),
		Path: "/" + owner, RawQuery: "sslmode=disable",
	}
	return u.String()
}

// Port is the port that the server listens on.
func (pg *Postgres) Port() int { return pg.port }

// PID is the postmaster's process id.
func (pg *Postgres) PID() int { return pg.current().pid }

// BinDir is the folder of the version's programs (pg_dump, psql, ...), as seen
// from inside the chroot.
func (pg *Postgres) BinDir() string { return pg.bin }

// Done is closed when the server has ended for any reason. Restart makes a new
// channel.
func (pg *Postgres) Done() <-chan struct{} { return pg.current().done }

func (pg *Postgres) current() *process {
	pg.mu.Lock()
	defer pg.mu.Unlock()
	return pg.process
}

// Stop shuts the server down (fast: open transactions are rolled back) and
// releases the folder. If ctx ends first the server is killed, and an error
// returned. A second Stop does nothing.
func (pg *Postgres) Stop(ctx context.Context) error {
	pg.mu.Lock()
	defer pg.mu.Unlock()
	err := pg.process.stop(ctx, syscall.SIGINT)
	return errors.Join(wrap("stop postgres", err), pg.giveUp())
}

// Kill ends the server and all its processes with SIGKILL, as a crash of the
// machine would. The folder stays locked, for Restart.
func (pg *Postgres) Kill() error {
	pg.mu.Lock()
	defer pg.mu.Unlock()
	return wrap("kill postgres", pg.process.kill(context.Background())) // it has a deadline of its own
}

// Restart stops the server if it runs and starts it again on the same port,
// with the same data.
func (pg *Postgres) Restart(ctx context.Context) error {
	pg.mu.Lock()
	defer pg.mu.Unlock()
	if pg.lock == nil {
		return errors.New("restart postgres: it was stopped; start another one")
	}
	if err := pg.process.stop(ctx, syscall.SIGINT); err != nil {
		return fmt.Errorf("restart postgres: %w", err)
	}
	return wrap("restart postgres", pg.start(ctx))
}

func (pg *Postgres) giveUp() error {
	if pg.lock == nil {
		return nil
	}
	err := pg.lock.release()
	pg.lock = nil
	return err
}

func wrap(doing string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", doing, err)
}
