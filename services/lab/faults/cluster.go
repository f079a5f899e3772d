package faults

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"posthorn/services/internal/postgres"
	"posthorn/services/internal/privateserver"
	"posthorn/services/internal/proxy"
	"posthorn/services/internal/signing"
	"posthorn/services/lab/site"
)

// restartAfter is how long the supervisor waits before it restarts a process
// that has died.
const restartAfter = 300 * time.Millisecond

// StartServers starts, in a folder, the Postgres and the RabbitMQ that scenarios
// break.
func StartServers(ctx context.Context, dir string) (*site.Servers, error) {
	return site.Start(ctx, privateserver.Options{Dir: filepath.Join(dir, "postgres")}, privateserver.Options{Dir: filepath.Join(dir, "rabbitmq")})
}

// Cluster is a Posthorn of several processes with its own database and
// namespace, connected to both servers through proxies that can fail.
type Cluster struct {
	*site.Servers
	Sink *Sink
	// API is the API's address.
	API string
	// Namespace is the prefix of the names in RabbitMQ.
	Namespace string

	binary, dir string
	direct      string // address of the database, without the proxy
	key         string // encrypts the secrets
	log         *os.File
	db          *sql.DB
	env         []string
	toPostgres  *proxy.Proxy
	toRabbitMQ  *proxy.Proxy
	parts       map[string]*site.Process
	ids         map[string]string // of subscriptions, by the subscriber's name
	expected    []Expectation
	checks      []func(run) string // further checks, which return the error
	limits      map[string]int     // of open files, by part
	addrs       map[string]string  // of the parts' pages
	chance      *rand.Rand
	ends        []func() error // further cleanups
}

// number makes the names of databases and namespaces unique.
var number atomic.Int64 //nolint:gochecknoglobals // counts over all clusters of a server

// newCluster prepares a cluster without running parts.
func newCluster(ctx context.Context, servers *site.Servers, binary, dir string, chance *rand.Rand) (_ *Cluster, err error) {
	name := fmt.Sprintf("f%d_%d", os.Getpid(), number.Add(1))
	c := &Cluster{
		Namespace: name + ".", binary: binary, dir: dir, parts: map[string]*site.Process{}, ids: map[string]string{},
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

// attach creates a database and proxies to the servers, for parts that start
// from now on.
func (c *Cluster) attach(ctx context.Context, servers *site.Servers) (err error) {
	c.Servers = servers
	name := strings.TrimSuffix(c.Namespace, ".")
	database, err := servers.NewDatabase(ctx, name)
	if err != nil {
		return err
	}
	c.direct = database.String()
	if c.db, err = postgres.Open(c.direct, "faults", 4); err != nil {
		return err
	}
	broker, err := url.Parse(servers.RabbitMQ.URL())
	if err != nil {
		return fmt.Errorf("read address of rabbitmq: %w", err)
	}
	if c.toPostgres, err = through(ctx, database); err != nil {
		return err
	}
	if c.toRabbitMQ, err = through(ctx, broker); err != nil {
		return err
	}
	c.env = site.Environment(c.dir, database.String(), broker.String(), c.key, "POSTHORN_NAMESPACE="+c.Namespace,
		"POSTHORN_RETRY_SCHEDULE=1s,1s,2s,2s,5s,5s,5s,5s,5s,5s,5s,5s,5s,5s,5s,5s")
	return nil
}

// through starts a proxy to a server and points the address to it.
func through(ctx context.Context, address *url.URL) (*proxy.Proxy, error) {
	l, err := proxy.New(ctx, address.Host)
	if err != nil {
		return nil, err
	}
	address.Host = l.Addr()
	return l, nil
}

// startAll starts an API, two relays, two deliveries and more. failpoints are
// by part, and only for its first start.
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

// startPart starts a part and waits until it is ready. A number after its name
// distinguishes parts of a kind. It keeps its earlier address.
func (c *Cluster) startPart(ctx context.Context, name, failpoints string) (err error) {
	addr := c.addrs[name]
	if addr == "" {
		free, err := site.FreeAddrs(ctx, 1)
		if err != nil {
			return err
		}
		addr = free[0]
		c.addrs[name] = addr
	}
	variable := "METRICS_ADDR="
	if name == "api" {
		variable, c.API = "HTTP_ADDR=", "http://"+addr
	}
	command, limit := strings.TrimRight(name, "0123456789"), c.limits[name]
	p, err := site.StartProcess(name, restartAfter, func(start int) *exec.Cmd {
		cmd := exec.Command(c.binary, command) //nolint:gosec,noctx // the binary was built for this; ended by killAll
		if limit > 0 {
			//nolint:gosec,noctx // as above
			cmd = exec.Command("/bin/sh", "-c", `ulimit -n "$2" && exec "$0" "$1"`, c.binary, command, strconv.Itoa(limit))
		}
		cmd.Env = append(slices.Clip(c.env), variable+addr)
		if start == 1 {
			cmd.Env = append(cmd.Env, "POSTHORN_FAILPOINTS="+failpoints)
		}
		cmd.Stdout, cmd.Stderr = c.log, c.log
		return cmd
	})
	if err != nil {
		return err
	}
	c.parts[name] = p
	// If it dies it is restarted, so keep waiting.
	return site.Await(ctx, 30*time.Second, name+" is ready", func() bool { return site.Ready(ctx, addr) })
}

// killAll ends all parts permanently.
func (c *Cluster) killAll() error {
	var errs []error
	for _, p := range c.parts {
		errs = append(errs, p.Kill())
	}
	return errors.Join(errs...)
}

// detach closes the proxies to the servers.
func (c *Cluster) detach() error {
	c.toPostgres.Close()
	c.toRabbitMQ.Close()
	return c.db.Close()
}

// close ends everything of the cluster.
func (c *Cluster) close() error {
	errs := []error{c.killAll(), c.detach(), c.Sink.Close(), c.log.Close()}
	for _, end := range c.ends {
		errs = append(errs, end())
	}
	return errors.Join(errs...)
}

// subscribe creates a subscription for a subscriber of the sink.
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
	return site.Call(ctx, method, c.API+path, body, answer)
}

// bare is a subscription's id as stored in the tables.
func bare(id string) string { return strings.TrimPrefix(id, "sub_") }

// queue is the name of a subscriber's queue.
func (c *Cluster) queue(name string) string { return c.Namespace + "deliver." + c.ids[name] }

// ledger queries the tables directly, without the code under test.
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

// unfinished returns the number of unfinished deliveries.
func (c *Cluster) unfinished(ctx context.Context) (n int, err error) {
	err = c.db.QueryRowContext(ctx, `SELECT count(*) FROM posthorn.deliveries WHERE status IN ('pending', 'retrying')`).Scan(&n)
	if err != nil {
		return 0, fmt.Errorf("read ledger: %w", err)
	}
	return n, nil
}
