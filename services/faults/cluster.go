package faults

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	toxiproxy "github.com/Shopify/toxiproxy/v2"
	"github.com/rs/zerolog"

	"posthorn/services/internal/postgres"
	"posthorn/services/internal/privateserver"
	"posthorn/services/internal/signing"
)

// restartAfter is how long whoever looks after the processes waits before it
// starts one again that has died.
const restartAfter = 300 * time.Millisecond

// Servers are the Postgres and the RabbitMQ that scenarios break.
type Servers struct {
	Postgres *privateserver.Postgres
	RabbitMQ *privateserver.RabbitMQ
}

// StartServers starts both in a folder.
func StartServers(ctx context.Context, dir string) (*Servers, error) {
	return startServers(ctx, privateserver.Options{Dir: filepath.Join(dir, "postgres")}, privateserver.Options{Dir: filepath.Join(dir, "rabbitmq")})
}

func startServers(ctx context.Context, forPostgres, forRabbitMQ privateserver.Options) (*Servers, error) {
	pg, err := privateserver.StartPostgres(ctx, forPostgres)
	if err != nil {
		return nil, err
	}
	// Full disks and memory are made on purpose.
	settings := map[string]string{"disk_free_limit.absolute": "50MB", "vm_memory_high_watermark.absolute": "2GB"}
	maps.Copy(settings, forRabbitMQ.Settings)
	forRabbitMQ.Settings = settings
	mq, err := privateserver.StartRabbitMQ(ctx, forRabbitMQ)
	if err != nil {
		return nil, errors.Join(err, pg.Kill()) //nolint:contextcheck // has to happen whatever ended
	}
	return &Servers{pg, mq}, nil
}

// Kill ends both at once; their data are not wanted any more.
func (s *Servers) Kill() error { return errors.Join(s.RabbitMQ.Kill(), s.Postgres.Kill()) }

// Cluster is a Posthorn of several processes on a database and a namespace of
// its own, with lines to both servers that can be cut.
type Cluster struct {
	*Servers
	Sink *Sink
	// API is its address.
	API string
	// Namespace is put before the names in RabbitMQ.
	Namespace string

	binary, dir string
	direct      string // address of the database, past the line
	key         string // that the secrets are encrypted with
	log         *os.File
	db          *sql.DB
	env         []string
	toPostgres  *toxiproxy.Proxy
	toRabbitMQ  *toxiproxy.Proxy
	parts       map[string]*part
	ids         map[string]string // of subscriptions, by the subscriber's name
	expected    []Expectation
	checks      []func(run) string // further ones, which say what is wrong
	limits      map[string]int     // of open files, by part
	addrs       map[string]string  // of the parts' pages
	chance      *rand.Rand
	ends        []func() error // what else is to be ended
}

// part is a process that is started again when it dies, as systemd would.
type part struct {
	name    string
	cluster *Cluster
	command string
	env     []string
	limit   int // of open files; 0 is the machine's

	mu       sync.Mutex
	pid      int
	stopping bool
	started  int
	crashes  atomic.Int64
	done     chan struct{}
}

// number makes the names of databases and namespaces different.
var number atomic.Int64 //nolint:gochecknoglobals // counts over all clusters of a server

// newCluster prepares a cluster in which nothing runs yet.
func newCluster(ctx context.Context, servers *Servers, binary, dir string, chance *rand.Rand) (_ *Cluster, err error) {
	name := fmt.Sprintf("f%d_%d", os.Getpid(), number.Add(1))
	c := &Cluster{
		Namespace: name + ".", binary: binary, dir: dir, parts: map[string]*part{}, ids: map[string]string{},
		addrs: map[string]string{}, chance: chance, key: signing.GenerateKey(),
	}
	if c.log, err = os.Create(filepath.Join(dir, "posthorn.log")); err != nil { //nolint:gosec // in the suite's folder
		return nil, fmt.Errorf("make log: %w", err)
	}
	if c.Sink, err = NewSink(ctx, filepath.Join(dir, "arrivals.jsonl"), chance.Uint64()); err != nil {
		return nil, err
	}
	return c, c.attach(ctx, servers)
}

// attach makes a database and lines to the servers, for parts that start from
// now on.
func (c *Cluster) attach(ctx context.Context, servers *Servers) (err error) {
	c.Servers = servers
	name := strings.TrimSuffix(c.Namespace, ".")
	admin, err := postgres.Open(servers.Postgres.URL(), "faults", 1)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, admin.Close()) }()
	if _, err := admin.ExecContext(ctx, "CREATE DATABASE "+name); err != nil {
		return fmt.Errorf("create database: %w", err)
	}
	direct, err := database(servers.Postgres.URL(), name)
	if err != nil {
		return err
	}
	c.direct = direct.String()
	if c.db, err = postgres.Open(c.direct, "faults", 4); err != nil {
		return err
	}
	zerolog.SetGlobalLevel(zerolog.Disabled) // toxics have no other way to be silent
	toxics := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())
	through := func(proxy **toxiproxy.Proxy, u *url.URL) error {
		*proxy = toxiproxy.NewProxy(toxics, u.Scheme, "127.0.0.1:0", u.Host)
		if err := (*proxy).Start(); err != nil {
			return fmt.Errorf("start proxy: %w", err)
		}
		u.Host = (*proxy).Listen
		return nil
	}
	queue, err := url.Parse(servers.RabbitMQ.URL())
	if err != nil {
		return fmt.Errorf("read address of rabbitmq: %w", err)
	}
	if err := errors.Join(through(&c.toPostgres, direct), through(&c.toRabbitMQ, queue)); err != nil {
		return err
	}
	c.env = []string{
		"PATH=/usr/bin:/bin", "HOME=" + c.dir,
		"DATABASE_URL=" + direct.String(), "AMQP_URL=" + queue.String(), "POSTHORN_NAMESPACE=" + c.Namespace,
		"POSTHORN_SECRET_KEY=" + c.key, "POSTHORN_ALLOW_NETWORKS=127.0.0.0/8",
		"POSTHORN_RETRY_SCHEDULE=1s,1s,2s,2s,5s,5s,5s,5s,5s,5s,5s,5s,5s,5s,5s,5s",
	}
	return nil
}

// startAll starts an API, two relays, two deliveries and more. failpoints are
// by the part's name, and only for its first start.
func (c *Cluster) startAll(ctx context.Context, failpoints map[string]string, more ...string) error {
	//nolint:gosec // the binary was built for this
	migrate := exec.CommandContext(ctx, c.binary, "migrate")
	migrate.Env, migrate.Stdout, migrate.Stderr = c.env, c.log, c.log
	if err := migrate.Run(); err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	for _, name := range append(usualParts(), more...) {
		if err := c.startPart(ctx, name, failpoints[name]); err != nil {
			return err
		}
	}
	return nil
}

func usualParts() []string { return []string{"api", "relay", "relay2", "delivery", "delivery2"} }

// startPart starts a part and waits until it is ready. A number behind its
// name tells parts of a kind apart. It keeps the address that it once had.
func (c *Cluster) startPart(ctx context.Context, name, failpoints string) (err error) {
	addr := c.addrs[name]
	if addr == "" {
		if addr, err = freeAddr(ctx); err != nil {
			return err
		}
		c.addrs[name] = addr
	}
	variable := "METRICS_ADDR="
	if name == "api" {
		variable, c.API = "HTTP_ADDR=", "http://"+addr
	}
	p := &part{
		name: name, cluster: c, command: strings.TrimRight(name, "0123456789"), env: append(slices.Clip(c.env), variable+addr),
		limit: c.limits[name], done: make(chan struct{}),
	}
	c.parts[name] = p
	go p.run(context.WithoutCancel(ctx), failpoints)
	return await(ctx, 30*time.Second, name+" is ready", func() bool { return ready(ctx, "http://"+addr) })
}

func freeAddr(ctx context.Context) (string, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("find a port: %w", err)
	}
	return l.Addr().String(), l.Close()
}

func ready(ctx context.Context, base string) bool {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/readyz", http.NoBody)
	if err != nil {
		return false
	}
	client := http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		return false
	}
	return response.Body.Close() == nil && response.StatusCode == http.StatusOK
}

// await waits for a condition.
func await(ctx context.Context, within time.Duration, what string, done func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	for !done() {
		if ctx.Err() != nil {
			return fmt.Errorf("wait until %s: %w", what, ctx.Err())
		}
		pause(ctx, 50*time.Millisecond)
	}
	return nil
}

// run keeps the process up until it is told to stop.
func (p *part) run(ctx context.Context, failpoints string) {
	defer close(p.done)
	for {
		cmd := exec.CommandContext(ctx, p.cluster.binary, p.command) //nolint:gosec // the binary was built for this
		if p.limit > 0 {
			//nolint:gosec // as above
			cmd = exec.CommandContext(ctx, "/bin/sh", "-c", `ulimit -n "$2" && exec "$0" "$1"`, p.cluster.binary, p.command, strconv.Itoa(p.limit))
		}
		cmd.Env = append(slices.Clip(p.env), "POSTHORN_FAILPOINTS="+failpoints)
		failpoints = ""
		cmd.Stdout, cmd.Stderr = p.cluster.log, p.cluster.log
		// It may not outlive us, and Ctrl-C is ours to handle.
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		p.mu.Lock()
		if p.stopping {
			p.mu.Unlock()
			return
		}
		err := cmd.Start()
		if err == nil {
			p.pid = cmd.Process.Pid
			p.started++
		}
		p.mu.Unlock()
		if err == nil {
			err = cmd.Wait()
		}
		p.mu.Lock()
		p.pid = 0
		if err != nil {
			p.crashes.Add(1)
		}
		stopping := p.stopping
		p.mu.Unlock()
		if stopping {
			return
		}
		pause(ctx, restartAfter)
	}
}

// signal sends the process a signal, where it runs.
func (p *part) signal(sig syscall.Signal) error {
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

func (p *part) starts() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.started
}

// stop ends the process for good.
func (p *part) stop(ctx context.Context, within time.Duration) error {
	p.mu.Lock()
	p.stopping = true
	p.mu.Unlock()
	err := errors.Join(p.signal(syscall.SIGCONT), p.signal(syscall.SIGTERM))
	timer := time.NewTimer(within)
	defer timer.Stop()
	select {
	case <-p.done:
		return err
	case <-timer.C:
	case <-ctx.Done():
	}
	err = errors.Join(err, p.signal(syscall.SIGKILL))
	<-p.done
	return errors.Join(err, fmt.Errorf("%s did not stop within %v", p.name, within))
}

// stopAll ends all parts for good.
func (c *Cluster) stopAll(ctx context.Context) error {
	var errs []error
	for _, p := range c.parts {
		_ = p.signal(syscall.SIGKILL) // stop says it where that fails
	}
	for _, p := range c.parts {
		errs = append(errs, p.stop(ctx, 10*time.Second))
	}
	return errors.Join(errs...)
}

// detach takes the lines to the servers away.
func (c *Cluster) detach() error {
	c.toPostgres.Stop()
	c.toRabbitMQ.Stop()
	return c.db.Close()
}

// close ends everything of the cluster.
func (c *Cluster) close(ctx context.Context) error {
	errs := []error{c.stopAll(ctx), c.detach(), c.Sink.Close(), c.log.Close()}
	for _, end := range c.ends {
		errs = append(errs, end())
	}
	return errors.Join(errs...)
}

// subscribe makes a subscription of a subscriber of the sink.
func (c *Cluster) subscribe(ctx context.Context, name string, types ...string) error {
	return c.subscribeWith(ctx, name, "3s", 8, types...)
}

func (c *Cluster) subscribeWith(ctx context.Context, name, timeout string, maxInFlight int, types ...string) error {
	var answer struct {
		ID     string `json:"id"`
		Secret string `json:"secret"`
	}
	err := c.call(ctx, http.MethodPost, "/subscription", map[string]any{
		"url": c.Sink.URL(name), "eventTypes": types, "timeout": timeout, "maxInFlight": maxInFlight,
	}, &answer)
	if err != nil {
		return fmt.Errorf("subscribe %s: %w", name, err)
	}
	if err := c.Sink.Trust(name, answer.Secret); err != nil {
		return err
	}
	c.ids[name] = answer.ID
	e := Expectation{Subscriber: name, Types: types}
	err = c.db.QueryRowContext(ctx, `SELECT since FROM posthorn.subscriptions WHERE id::text = $1`, bare(answer.ID)).Scan(&e.After)
	if err != nil {
		return fmt.Errorf("read subscription: %w", err)
	}
	c.expected = append(c.expected, e)
	return nil
}

// call calls the API.
func (c *Cluster) call(ctx context.Context, method, path string, body, answer any) error {
	return request(ctx, method, c.API+path, nil, body, answer)
}

// request makes a request with JSON and wants a 2xx.
func request(ctx context.Context, method, address string, user *url.Userinfo, body, answer any) error {
	payload, err := json.Marshal(body)
	if err != nil {
		return fmt.Errorf("encode request: %w", err)
	}
	if body == nil {
		payload = nil
	}
	r, err := http.NewRequestWithContext(ctx, method, address, bytes.NewReader(payload))
	if err != nil {
		return fmt.Errorf("make request: %w", err)
	}
	r.Header.Set("Content-Type", "application/json")
	if user != nil {
		password, _ := user.Password()
		r.SetBasicAuth(user.Username(), password)
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, address, err)
	}
	defer func() { _ = response.Body.Close() }() // read to its end
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return fmt.Errorf("read answer: %w", err)
	}
	if response.StatusCode/100 != 2 {
		return fmt.Errorf("%s %s: status %d: %s", method, address, response.StatusCode, text)
	}
	if answer == nil {
		return nil
	}
	if err := json.Unmarshal(text, answer); err != nil {
		return fmt.Errorf("decode answer: %w", err)
	}
	return nil
}

// bare is a subscription's id as the tables have it.
func bare(id string) string { return strings.TrimPrefix(id, "sub_") }

// queue is the name of a subscriber's queue.
func (c *Cluster) queue(name string) string { return c.Namespace + "deliver." + c.ids[name] }

// ledger asks the tables themselves, past the code that is under test.
func (c *Cluster) ledger(ctx context.Context) (delivered []Pair, unfinished int, err error) {
	names := map[string]string{}
	for name, id := range c.ids {
		names[bare(id)] = name
	}
	rows, err := c.db.QueryContext(ctx, `SELECT event_id, subscription_id::text, status FROM posthorn.deliveries`)
	if err != nil {
		return nil, 0, fmt.Errorf("read ledger: %w", err)
	}
	defer func() { _ = rows.Close() }() // read to its end
	for rows.Next() {
		var event, id, status string
		if err := rows.Scan(&event, &id, &status); err != nil {
			return nil, 0, fmt.Errorf("read ledger: %w", err)
		}
		switch status {
		case "delivered":
			delivered = append(delivered, Pair{event, names[id]})
		case "pending", "retrying":
			unfinished++
		}
	}
	if err := rows.Err(); err != nil {
		return nil, 0, fmt.Errorf("read ledger: %w", err)
	}
	return delivered, unfinished, nil
}

// unfinished is how many deliveries have not ended.
func (c *Cluster) unfinished(ctx context.Context) (n int, err error) {
	err = c.db.QueryRowContext(ctx, `SELECT count(*) FROM posthorn.deliveries WHERE status IN ('pending', 'retrying')`).Scan(&n)
	if err != nil {
		return 0, fmt.Errorf("read ledger: %w", err)
	}
	return n, nil
}
