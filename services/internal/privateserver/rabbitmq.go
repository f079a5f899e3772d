package privateserver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// DefaultManagementPort is the usual port of RabbitMQ's web page.
const DefaultManagementPort = 15672

const (
	// loopbackOnly keeps Erlang's distribution port, of the node and of every
	// rabbitmqctl, off the machine's other addresses.
	loopbackOnly = "-kernel inet_dist_use_interface {127,0,0,1}"
	probeTimeout = 2 * time.Second
)

// RabbitMQ is a private node with the management plugin, on 127.0.0.1, with an
// epmd of its own. Its methods are safe to call from several goroutines.
type RabbitMQ struct {
	home     *home
	bin      string
	node     string // the node's folder
	name     string // in the cluster
	password string
	settings map[string]string
	lock     *lock
	join     *RabbitMQ
	members  atomic.Int32 // that have joined this one

	port, management, dist, epmdPort int

	mu      sync.Mutex
	process *process
	epmd    *process
}

// StartRabbitMQ starts the node in o.Dir and returns once it accepts
// connections and its web page responds, which takes about seven seconds. Its
// only account is posthorn, an administrator, with a generated password; there
// is no guest. ctx bounds the start, not the server's life.
func StartRabbitMQ(ctx context.Context, o Options) (_ *RabbitMQ, err error) {
	h, err := o.open("rabbitmq", "node")
	if err != nil {
		return nil, fmt.Errorf("start rabbitmq: %w", err)
	}
	mq := &RabbitMQ{home: h, bin: o.BinDir, node: filepath.Join(h.dir, "node"), settings: maps.Clone(o.Settings), name: owner + "@localhost", join: o.Join}
	if o.Join != nil {
		mq.name = fmt.Sprintf("%s%d@localhost", owner, 1+o.Join.members.Add(1))
	}
	if mq.lock, err = h.lock(); err != nil {
		return nil, fmt.Errorf("start rabbitmq: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("start rabbitmq: %w", err), mq.lock.release())
		}
	}()
	if mq.bin == "" {
		// Debian's program in /usr/sbin changes user, session and pid: it is last.
		mq.bin, err = h.find("rabbitmq-server", "/usr/lib/rabbitmq/bin", "/usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin", "/opt/rabbitmq/sbin",
			"/opt/homebrew/opt/rabbitmq/sbin", "/usr/local/opt/rabbitmq/sbin", "/usr/local/sbin", "/usr/sbin")
		if err != nil {
			return nil, err
		}
	}
	for _, leftover := range []string{"node.pid", "epmd.pid"} {
		if err := clearLeftover(ctx, h, filepath.Join(h.dir, leftover), mq.node, syscall.SIGTERM); err != nil {
			return nil, err
		}
	}
	if err := h.mkdir(mq.node); err != nil {
		return nil, fmt.Errorf("make the node's folder: %w", err)
	}
	if err := mq.share(); err != nil {
		return nil, err
	}
	wanted, wantedManagement, tried := o.Port, o.ManagementPort, ports{}
	for try := 1; ; try++ {
		if err = mq.pickPorts(ctx, tried, wanted, wantedManagement); err != nil {
			return nil, err
		}
		if err = mq.start(ctx); !errors.Is(err, errPortTaken) || try == startTries {
			break
		}
		wanted, wantedManagement = 0, 0
	}
	if err == nil && mq.join != nil {
		if err = mq.cluster(ctx); err != nil {
			err = errors.Join(err, mq.Kill()) //nolint:contextcheck // has to happen whatever ended
		}
	}
	if err != nil {
		return nil, err
	}
	return mq, nil
}

// share takes over what the nodes of a cluster have in common, or makes it.
func (mq *RabbitMQ) share() (err error) {
	if mq.join == nil {
		mq.password, err = mq.home.password()
		return err
	}
	mq.password = mq.join.password
	const cookie = ".erlang.cookie"
	content, err := os.ReadFile(filepath.Join(mq.join.node, cookie))
	if err != nil {
		return fmt.Errorf("read the cluster's cookie: %w", err)
	}
	path := filepath.Join(mq.node, cookie)
	if err := mq.home.writeFile(path, string(content)); err != nil {
		return fmt.Errorf("keep the cluster's cookie: %w", err)
	}
	if err := os.Chmod(path, 0o400); err != nil {
		return fmt.Errorf("keep the cluster's cookie: %w", err)
	}
	return nil
}

// cluster has a node that is up join the other's cluster.
func (mq *RabbitMQ) cluster(ctx context.Context) error {
	for _, args := range [][]string{{"stop_app"}, {"join_cluster", mq.join.name}, {"start_app"}} {
		if _, err := mq.Ctl(ctx, args...); err != nil {
			return fmt.Errorf("join cluster: %w", err)
		}
	}
	return mq.await(ctx, mq.process, 0)
}

func (mq *RabbitMQ) pickPorts(ctx context.Context, tried ports, wanted, wantedManagement int) (err error) {
	if mq.port, err = tried.pick(ctx, wanted); err != nil {
		return err
	}
	if mq.management, err = tried.pick(ctx, wantedManagement); err != nil {
		return err
	}
	if mq.dist, err = tried.pick(ctx, 0); err != nil {
		return err
	}
	if mq.join != nil {
		mq.epmdPort = mq.join.epmdPort
		return nil
	}
	mq.epmdPort, err = tried.pick(ctx, 0)
	return err
}

// configure writes the files that the node reads. It does not read the
// machine's own in /etc/rabbitmq.
func (mq *RabbitMQ) configure() error {
	defaults := map[string]string{
		"listeners.tcp.1":     address(mq.port),
		"management.tcp.ip":   "127.0.0.1",
		"management.tcp.port": strconv.Itoa(mq.management),
		"default_user":        owner,
		"default_pass":        mq.password,
	}
	if _, err := os.Stat(filepath.Join(mq.home.chroot, "/proc/meminfo")); err != nil {
		// The other strategies read /proc, and fail in a chroot without it. So
		// does reading the machine's memory, which then counts as 1 GB.
		defaults["vm_memory_calculation_strategy"] = "allocated"
		defaults["total_memory_available_override_value"] = "4GB"
	}
	keys, settings := merged(defaults, mq.settings)
	var conf strings.Builder
	for _, key := range keys {
		_, _ = fmt.Fprintf(&conf, "%s = %s\n", key, settings[key]) // a Builder does not fail
	}
	return errors.Join(
		mq.home.writeFile(filepath.Join(mq.node, "rabbitmq.conf"), conf.String()),
		mq.home.writeFile(filepath.Join(mq.node, "enabled_plugins"), "[rabbitmq_management].\n"),
	)
}

func (mq *RabbitMQ) env() []string {
	node := mq.home.inside(mq.node)
	return []string{
		"HOME=" + node, // where the cookie is
		"RABBITMQ_NODENAME=" + mq.name,
		"RABBITMQ_CONF_ENV_FILE=" + filepath.Join(node, "none"),
		"RABBITMQ_CONFIG_FILE=" + filepath.Join(node, "rabbitmq"),
		"RABBITMQ_CONFIG_FILES=" + filepath.Join(node, "conf.d", "*.conf"),
		"RABBITMQ_ADVANCED_CONFIG_FILE=" + filepath.Join(node, "advanced.config"),
		"RABBITMQ_GENERATED_CONFIG_DIR=" + filepath.Join(node, "generated"),
		"RABBITMQ_ENABLED_PLUGINS_FILE=" + filepath.Join(node, "enabled_plugins"),
		"RABBITMQ_MNESIA_BASE=" + filepath.Join(node, "mnesia"),
		"RABBITMQ_LOG_BASE=" + filepath.Join(node, "log"),
		"RABBITMQ_PID_FILE=" + filepath.Join(node, "rabbitmq.pid"),
		"RABBITMQ_LOGS=-",
		"RABBITMQ_DIST_PORT=" + strconv.Itoa(mq.dist),
		"ERL_EPMD_PORT=" + strconv.Itoa(mq.epmdPort),
		"ERL_EPMD_ADDRESS=127.0.0.1",
		"ERL_CRASH_DUMP_SECONDS=0", // a dump of a node killed in a test is hundreds of megabytes
		"RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=" + loopbackOnly,
		// The script then becomes the node instead of waiting for it, so that
		// the child's pid is the node's. The settings that it then omits are
		// added here.
		"RABBITMQ_ALLOW_INPUT=1",
		"RABBITMQ_SERVER_START_ARGS=-noinput +B i",
		"RABBITMQ_CTL_ERL_ARGS=" + loopbackOnly,
		// Any port: the default range has room for eleven calls at a time on
		// one machine.
		"RABBITMQ_CTL_DIST_PORT_MIN=0",
		"RABBITMQ_CTL_DIST_PORT_MAX=0",
	}
}

// start runs epmd and the node on the configured ports, and returns once both are ready.
func (mq *RabbitMQ) start(ctx context.Context) (err error) {
	if err := mq.configure(); err != nil {
		return fmt.Errorf("write configuration: %w", err)
	}
	h := mq.home
	log, from, err := h.openLog()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, log.Close()) }() // the node has it open for itself
	begun := time.Now()
	h.tell("starting RabbitMQ (this takes some seconds)")
	h.logger.InfoContext(ctx, "starting rabbitmq", "dir", h.dir)

	epmd, err := mq.startEPMD(ctx, log)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, epmd.kill(ctx))
		}
	}()

	node, err := h.start(ctx, command{
		path: filepath.Join(mq.bin, "rabbitmq-server"), env: mq.env(),
		dir: h.inside(mq.node), deathSignal: syscall.SIGTERM, output: log,
		family: []string{"erl_child_setup", "inet_gethost"},
	})
	if err != nil {
		return err
	}
	if err := errors.Join(h.record("node.pid", node.pid), mq.await(ctx, node, from)); err != nil {
		return errors.Join(err, node.kill(ctx))
	}
	mq.process, mq.epmd = node, epmd
	h.logger.InfoContext(ctx, "rabbitmq is ready", "port", mq.port, "management_port", mq.management, "pid", node.pid, "dir", h.dir,
		"duration_ms", time.Since(begun).Milliseconds())
	return nil
}

// startEPMD starts the name server of the cluster, or returns nil where that
// belongs to another node.
func (mq *RabbitMQ) startEPMD(ctx context.Context, log io.Writer) (*process, error) {
	if mq.join != nil {
		return nil, nil //nolint:nilnil // nothing to start, and nothing wrong
	}
	h := mq.home
	// In the foreground as our child: a node would start a daemon that stays
	// behind.
	bin, err := h.find("epmd", "/usr/bin", "/usr/lib/erlang/bin", "/usr/lib/erlang/erts-*/bin", "/usr/local/bin", "/opt/homebrew/bin")
	if err != nil {
		return nil, err
	}
	epmd, err := h.start(ctx, command{
		path: filepath.Join(bin, "epmd"), args: []string{"-port", strconv.Itoa(mq.epmdPort), "-address", "127.0.0.1"},
		dir: h.inside(mq.node), deathSignal: syscall.SIGTERM, output: log,
	})
	if err != nil {
		return nil, err
	}
	if err := h.record("epmd.pid", epmd.pid); err != nil {
		return nil, errors.Join(err, epmd.kill(ctx))
	}
	if err := poll(ctx, func() (bool, error) {
		if !epmd.running() {
			return false, errPortTaken
		}
		return answers(ctx, mq.epmdPort, "", ""), nil
	}); err != nil {
		return nil, errors.Join(fmt.Errorf("start epmd: %w", err), epmd.kill(ctx))
	}
	return epmd, nil
}

// await returns once the node accepts AMQP connections and serves its web page.
func (mq *RabbitMQ) await(ctx context.Context, node *process, from int64) error {
	booted := false
	err := poll(ctx, func() (bool, error) {
		if !node.running() {
			return false, errExited
		}
		// Listeners are the last step of a boot; a plugin may come after them.
		if !booted && answers(ctx, mq.port, "AMQP\x00\x00\x09\x01", "\x01") {
			booted = true
			mq.home.tell("RabbitMQ takes connections, waiting for its web page")
		}
		return booted && mq.serves(ctx), nil
	})
	if err == nil {
		return nil
	}
	said := mq.home.logSince(from)
	if errors.Is(err, errExited) && strings.Contains(said, "eaddrinuse") {
		err = errPortTaken
	}
	return fmt.Errorf("%w: %s", err, tail(said))
}

// answers reports whether something on the port accepts a connection and, if
// there is a question, answers it with the expected bytes.
func answers(ctx context.Context, port int, question, expected string) bool {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp4", address(port))
	if err != nil {
		return false
	}
	defer func() { _ = conn.Close() }() // nothing to lose
	if question == "" {
		return true
	}
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return false
	}
	if _, err := io.WriteString(conn, question); err != nil {
		return false
	}
	answer := make([]byte, len(expected))
	_, err = io.ReadFull(conn, answer)
	return err == nil && string(answer) == expected
}

// serves reports whether the web page responds.
func (mq *RabbitMQ) serves(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, mq.ManagementURL(), http.NoBody)
	if err != nil {
		return false
	}
	// Without a proxy of the environment and without keep-alive.
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		return false
	}
	return response.Body.Close() == nil && response.StatusCode == http.StatusOK
}

// record stores a pid for a later start.
func (h *home) record(file string, pid int) error {
	if err := os.WriteFile(filepath.Join(h.dir, file), []byte(strconv.Itoa(pid)+"\n"), 0o600); err != nil {
		return fmt.Errorf("record pid: %w", err)
	}
	return nil
}

// URL is the address for AMQP clients, with the password. It stays the same
// across Restart.
func (mq *RabbitMQ) URL() string {
	u := url.URL{Scheme: "amqp", User: url.UserPassword(owner, mq.password), Host: address(mq.port), Path: "/"}
	return u.String()
}

// ManagementURL is the address of the web page and the management API, without
// the account.
func (mq *RabbitMQ) ManagementURL() string {
	return "http://" + address(mq.management) + "/"
}

// User is the name of the node's only account.
func (mq *RabbitMQ) User() string { return owner }

// Password is the account's password.
func (mq *RabbitMQ) Password() string { return mq.password }

// Port is the port for AMQP.
func (mq *RabbitMQ) Port() int { return mq.port }

// PID is the node's process id: that of the Erlang VM itself, not of its script.
func (mq *RabbitMQ) PID() int { return mq.current().pid }

// Done is closed when the node has ended for any reason. Restart makes a new
// channel.
func (mq *RabbitMQ) Done() <-chan struct{} { return mq.current().done }

func (mq *RabbitMQ) current() *process {
	mq.mu.Lock()
	defer mq.mu.Unlock()
	return mq.process
}

// Ctl runs rabbitmqctl against the node and returns its output. A node accepts
// connections a moment before it accepts commands, so a command that is refused
// for that reason is retried until ctx ends.
func (mq *RabbitMQ) Ctl(ctx context.Context, args ...string) (string, error) {
	h := mq.home
	for {
		out, err := h.run(ctx, command{
			path: filepath.Join(mq.bin, "rabbitmqctl"), args: append([]string{"--quiet", "--node", mq.name}, args...),
			env: mq.env(), dir: h.inside(mq.node), deathSignal: syscall.SIGKILL,
		}, nil)
		if err == nil || ctx.Err() != nil || !strings.Contains(err.Error(), "requires the 'rabbit' app to be running") {
			return out, err
		}
	}
}

// Stop shuts the node down and releases the folder. If ctx ends first the node
// is killed, and an error returned. A second Stop does nothing.
func (mq *RabbitMQ) Stop(ctx context.Context) error {
	mq.mu.Lock()
	defer mq.mu.Unlock()
	err := mq.stop(ctx)
	if mq.lock != nil {
		err = errors.Join(err, mq.lock.release())
		mq.lock = nil
	}
	return wrap("stop rabbitmq", err)
}

func (mq *RabbitMQ) stop(ctx context.Context) error {
	// epmd has no state, so killing it is safe.
	return errors.Join(mq.process.stop(ctx, syscall.SIGTERM), mq.epmd.kill(ctx))
}

// Kill ends the node, epmd and all children of the node with SIGKILL, as a
// crash of the machine would. The folder stays locked, for Restart.
func (mq *RabbitMQ) Kill() error {
	mq.mu.Lock()
	defer mq.mu.Unlock()
	ctx := context.Background() // kill has a deadline of its own
	return wrap("kill rabbitmq", errors.Join(mq.process.kill(ctx), mq.epmd.kill(ctx)))
}

// Restart stops the node if it runs and starts it again on the same ports, with
// the same data.
func (mq *RabbitMQ) Restart(ctx context.Context) error {
	mq.mu.Lock()
	defer mq.mu.Unlock()
	return wrap("restart rabbitmq", mq.restart(ctx, func() error { return nil }))
}

// Wipe is a Restart as an empty node: every queue, exchange, message and
// account is gone except the account posthorn, which keeps its password.
func (mq *RabbitMQ) Wipe(ctx context.Context) error {
	mq.mu.Lock()
	defer mq.mu.Unlock()
	return wrap("wipe rabbitmq", mq.restart(ctx, func() error {
		return os.RemoveAll(filepath.Join(mq.node, "mnesia"))
	}))
}

func (mq *RabbitMQ) restart(ctx context.Context, between func() error) error {
	if mq.lock == nil {
		return errors.New("it was stopped; start another one")
	}
	if err := mq.stop(ctx); err != nil {
		return err
	}
	if err := between(); err != nil {
		return err
	}
	return mq.start(ctx)
}
