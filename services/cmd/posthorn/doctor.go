package main

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"posthorn/services/delivery"
	"posthorn/services/internal/broker"
	"posthorn/services/internal/eventlog"
	"posthorn/services/internal/postgres"
	"posthorn/services/internal/process"
	"posthorn/services/internal/web"
)

const (
	doctorTimeout = 20 * time.Second
	// skewAllowed is how far the clocks of this machine and of Postgres may differ.
	skewAllowed = 5 * time.Second
	// usualFiles is the usual default limit of open files.
	usualFiles = 1024
	// behindAllowed is how long a record may wait to be forwarded.
	behindAllowed = time.Minute
)

type doctorCmd struct {
	databaseFlags
	brokerFlags
	keyFlags
	AdminKey      string   `hidden:"" env:"POSTHORN_ADMIN_KEY"`
	AllowNetworks []string `hidden:"" env:"POSTHORN_ALLOW_NETWORKS"`
	ManagementURL string   `help:"RabbitMQ's management API, to check its file limit. User and password are those of AMQP_URL." placeholder:"http://host:15672" env:"RABBITMQ_MANAGEMENT_URL"`
	JSON          bool     `name:"json" help:"Print a JSON object per check."`
}

// Help is shown by --help.
func (doctorCmd) Help() string {
	return `Checks the servers and the settings of an installation, with the settings of its parts, and changes nothing. Prints one line for each check: ok, warn or fail, and what to do.

Exit status: 0 no check fails, 1 error, 3 a check fails.`
}

// finding is the result of a check.
type finding struct {
	Check  string `json:"check"`
	Status string `json:"status"` // ok, warn or fail
	Detail string `json:"detail"`
}

func ok(check, format string, args ...any) finding {
	return finding{check, "ok", fmt.Sprintf(format, args...)}
}

func warn(check, format string, args ...any) finding {
	return finding{check, "warn", fmt.Sprintf(format, args...)}
}

func failed(check, format string, args ...any) finding {
	return finding{check, "fail", fmt.Sprintf(format, args...)}
}

func (c *doctorCmd) Run(ctx context.Context, e *env) error {
	ctx, cancel := context.WithTimeout(ctx, doctorTimeout)
	defer cancel()
	p := printer{w: e.out}
	failures := 0
	tell := func(f finding) {
		if f.Status == "fail" {
			failures++
		}
		if !c.JSON {
			p.printf("%-5s %-12s %s\n", f.Status, f.Check, f.Detail)
			return
		}
		line, err := json.Marshal(f)
		if err != nil {
			p.err = cmp.Or(p.err, err)
			return
		}
		p.printf("%s\n", line)
	}
	subscriptions := c.checkDatabase(ctx, tell)
	c.checkBroker(ctx, subscriptions, tell)
	c.checkFiles(tell)
	c.checkSettings(tell)
	if p.err == nil && failures > 0 {
		return errFindings
	}
	return p.err
}

// checkDatabase also returns the number of subscriptions.
func (c *doctorCmd) checkDatabase(ctx context.Context, tell func(finding)) (subscriptions int) {
	pool, err := c.open("doctor", 2)
	if err != nil {
		tell(failed("postgres", "%v", err))
		return 0
	}
	defer func() { _ = pool.Close() }()
	if err := postgres.Probe(ctx, pool); err != nil {
		tell(failed("postgres", "%v", err))
		return 0
	}
	var (
		version string
		skew    float64
	)
	before := time.Now()
	if err := pool.QueryRowContext(ctx, `SELECT current_setting('server_version'), extract(epoch FROM clock_timestamp())`).Scan(&version, &skew); err != nil {
		tell(failed("postgres", "%s: %v", cmp.Or(postgres.Describe(postgres.Translate(err)), "it cannot be used"), err))
		return 0
	}
	tell(ok("postgres", "version %s", version))
	middle := before.Add(time.Since(before) / 2)
	if off := middle.Sub(time.UnixMicro(int64(skew * 1e6))); off.Abs() > skewAllowed {
		tell(warn("clocks", "the clocks of this machine and of Postgres differ by %v: receivers check the time in signatures; run a time service on both", off.Round(time.Second)))
	} else {
		tell(ok("clocks", "within %v of Postgres", skewAllowed))
	}
	if err := postgres.CheckSchema(ctx, pool); err != nil {
		tell(failed("schema", "%v: run posthorn migrate", err))
		return 0
	}
	tell(ok("schema", "up to date"))
	if err := pool.QueryRowContext(ctx, `SELECT count(*) FROM posthorn.subscriptions WHERE status <> 'deleted'`).Scan(&subscriptions); err != nil {
		tell(failed("postgres", "count subscriptions: %v", err))
		return 0
	}
	c.checkSecrets(ctx, pool, tell)
	checkRelay(ctx, pool, tell)
	return subscriptions
}

func (c *doctorCmd) checkSecrets(ctx context.Context, pool *sql.DB, tell func(finding)) {
	keys, err := c.existing()
	if err != nil {
		tell(failed("secret key", "%v", err))
		return
	}
	uses, err := keyUses(ctx, pool, keys)
	if err != nil {
		tell(failed("secret key", "%v", err))
		return
	}
	var missing, old int64
	for _, u := range uses {
		switch u.State {
		case "missing":
			missing += u.Secrets
		case "opens":
			old += u.Secrets + u.Answers
		}
	}
	switch {
	case missing > 0:
		tell(failed("secret key", "%d secrets cannot be opened, and their subscriptions are not served: add the key that sealed them to POSTHORN_SECRET_KEY (posthorn secrets status)", missing))
	case isPublic(c.SecretKey):
		tell(warn("secret key", "it is the public key of docker-compose.yml; generate one: head -c 32 /dev/urandom | base64"))
	case old > 0:
		tell(warn("secret key", "%d values are not sealed with the first key: run posthorn secrets reseal, then remove the old key", old))
	default:
		tell(ok("secret key", "it opens every secret"))
	}
}

func checkRelay(ctx context.Context, pool *sql.DB, tell func(finding)) {
	held, err := eventlog.CountQuarantined(ctx, pool)
	if err != nil {
		tell(failed("quarantine", "%v", err))
		return
	}
	if held > 0 {
		tell(warn("quarantine", "%d records wait for an operator: run posthorn outbox quarantine list", held))
	} else {
		tell(ok("quarantine", "no records are held"))
	}
	var (
		behind int64
		oldest sql.NullTime
	)
	err = pool.QueryRowContext(ctx, `
		SELECT count(*), min(recorded_at) FROM (
			SELECT recorded_at FROM posthorn.outbox
			WHERE position > (SELECT position FROM posthorn.readers WHERE name = 'relay') ORDER BY position LIMIT 10000
		) waiting`).Scan(&behind, &oldest)
	switch {
	case err != nil:
		tell(failed("relay", "read its position: %v", err))
	case behind > 0 && time.Since(oldest.Time) > behindAllowed:
		tell(failed("relay", "at least %d records are not forwarded, the oldest from %s: check that a relay is running, and its /readyz",
			behind, oldest.Time.UTC().Format(time.RFC3339)))
	default:
		tell(ok("relay", "%d records are on their way", behind))
	}
}

func (c *doctorCmd) checkBroker(ctx context.Context, subscriptions int, tell func(finding)) {
	config, err := c.config("doctor", nil)
	if err != nil {
		tell(failed("rabbitmq", "%v", err))
		return
	}
	seen, err := broker.Inspect(ctx, config)
	if err != nil {
		tell(failed("rabbitmq", "%s", cmp.Or(broker.Describe(err), err.Error())))
		return
	}
	tell(ok("rabbitmq", "%s %s, cluster %s", seen.Product, seen.Version, seen.Cluster))
	const check = "broker files"
	var limit, used int
	if c.ManagementURL != "" {
		if limit, used, err = brokerFiles(ctx, c.ManagementURL, config.URL); err != nil {
			tell(warn(check, "%v", err))
			return
		}
	}
	if limit == 0 { // not queried, or RabbitMQ does not report it
		if subscriptions > usualFiles/2 {
			tell(warn(check, "RabbitMQ can need more than one file for each of %d subscriptions: check that it may open 65536 "+
				"(rabbitmqctl status, \"File Descriptors\"; ulimit -n, LimitNOFILE or ulimits of its service), or give --management-url", subscriptions))
		} else {
			tell(ok(check, "%d subscriptions need no more than the usual limit of %d", subscriptions, usualFiles))
		}
		return
	}
	if limit < 2*subscriptions+usualFiles/2 {
		tell(failed(check, "RabbitMQ may open %d and has %d open: too few for %d subscriptions; raise ulimit -n, LimitNOFILE or ulimits of its service to 65536",
			limit, used, subscriptions))
		return
	}
	tell(ok(check, "RabbitMQ may open %d and has %d open", limit, used))
}

// brokerFiles asks RabbitMQ's management API for the lowest limit of open files
// of any node.
func brokerFiles(ctx context.Context, management, amqpURL string) (limit, used int, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(management, "/")+"/api/nodes", nil)
	if err != nil {
		return 0, 0, errors.New("invalid --management-url: want a URL such as http://host:15672")
	}
	if u, err := url.Parse(amqpURL); err == nil && u.User != nil {
		password, _ := u.User.Password()
		req.SetBasicAuth(u.User.Username(), password)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, 0, errors.New("RabbitMQ's management API cannot be reached")
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return 0, 0, fmt.Errorf("RabbitMQ's management API answers %s: the user needs the tag monitoring or administrator", resp.Status)
	}
	var nodes []struct {
		Limit int `json:"fd_total"`
		Used  int `json:"fd_used"`
	}
	if err := json.NewDecoder(http.MaxBytesReader(nil, resp.Body, 1<<20)).Decode(&nodes); err != nil || len(nodes) == 0 {
		return 0, 0, errors.New("RabbitMQ's management API does not return a list of nodes")
	}
	limit, used = nodes[0].Limit, nodes[0].Used
	for _, n := range nodes[1:] {
		if n.Limit < limit {
			limit, used = n.Limit, n.Used
		}
	}
	return limit, used, nil
}

func (c *doctorCmd) checkFiles(tell func(finding)) {
	files, known := process.FileLimit()
	requests, _ := delivery.Capacity(0)
	switch {
	case !known:
		tell(warn("own files", "this system does not report how many files a process may open"))
	case files < usualFiles:
		tell(warn("own files", "a process started like this one may open %d, so a delivery makes at most %d requests at once: raise ulimit -n", files, requests))
	default:
		tell(ok("own files", "a process started like this one may open %d: %d requests at once", files, requests))
	}
}

func (c *doctorCmd) checkSettings(tell func(finding)) {
	const key = "admin key"
	switch {
	case c.AdminKey == "":
		tell(ok(key, "none: the API is open, on loopback only unless POSTHORN_OPEN is set"))
	case web.CheckKey(c.AdminKey) != nil:
		tell(failed(key, "POSTHORN_ADMIN_KEY: %v", web.CheckKey(c.AdminKey)))
	case isPublic(c.SecretKey):
		tell(failed(key, "POSTHORN_SECRET_KEY is the public key of docker-compose.yml, which the API refuses together with an admin key"))
	default:
		tell(ok(key, "it is long enough"))
	}
	networks, err := parseNetworks(c.AllowNetworks)
	if err != nil {
		tell(failed("networks", "%v", err))
		return
	}
	for _, network := range networks {
		if danger := dangerOf(network); danger != "" {
			tell(warn("networks", "%s of POSTHORN_ALLOW_NETWORKS: %s", network, danger))
			return
		}
	}
	tell(ok("networks", "deliveries may reach %d private networks", len(networks)))
}
