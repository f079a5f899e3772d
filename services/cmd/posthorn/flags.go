package main

import (
	"context"
	"database/sql"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"time"

	"github.com/alecthomas/kong"

	"posthorn/events"
	"posthorn/services/internal/broker"
	"posthorn/services/internal/operate"
	"posthorn/services/internal/postgres"
	"posthorn/services/internal/process"
	"posthorn/services/internal/retry"
	"posthorn/services/internal/serverurl"
	"posthorn/services/internal/signing"
	"posthorn/services/internal/web"
)

// address parses a flag that is a listen address. A flag without a default may
// be empty.
func address(ctx *kong.DecodeContext, target reflect.Value) error {
	var addr string
	if err := ctx.Scan.PopValueInto("address", &addr); err != nil {
		return fmt.Errorf("read address: %w", err)
	}
	if addr != "" || ctx.Value.HasDefault {
		if err := process.CheckAddr(addr); err != nil {
			return err
		}
	}
	target.SetString(addr)
	return nil
}

// moment is a flag that is a time.
type moment struct{ time.Time }

// UnmarshalText parses a time with events.ParseTime, like all of Posthorn.
func (m *moment) UnmarshalText(text []byte) (err error) {
	m.Time, err = events.ParseTime(string(text))
	return err
}

type databaseFlags struct {
	DatabaseURL string `help:"Postgres to work with." placeholder:"postgres://user:password@host:5432/name" required:"" env:"DATABASE_URL"`
}

// probed is open for a part that is starting: it reports permanent errors at
// once. The part itself waits for an unreachable database.
func (f databaseFlags) probed(ctx context.Context, part string, conns int) (*sql.DB, error) {
	pool, err := f.open(part, conns)
	if err != nil {
		return nil, err
	}
	if err := postgres.Probe(ctx, pool); err != nil {
		return nil, errors.Join(err, pool.Close())
	}
	return pool, nil
}

// open returns a pool whose connections carry the part's name.
func (f databaseFlags) open(part string, conns int) (*sql.DB, error) {
	return postgres.Open(f.DatabaseURL, "posthorn "+part, conns)
}

// operations opens a pool for package operate, which the caller closes.
func (f databaseFlags) operations(part string) (*operate.Operations, io.Closer, error) {
	pool, err := f.open(part, 2)
	if err != nil {
		return nil, nil, err
	}
	return operate.New(pool, nil), pool, nil
}

type brokerFlags struct {
	AMQPURL    string `name:"amqp-url" help:"RabbitMQ to work with." placeholder:"amqp://user:password@host:5672/" required:"" env:"AMQP_URL"`
	Password   string `name:"amqp-password" help:"Password for RabbitMQ if its URL has a user and no password." env:"AMQP_PASSWORD"`
	QueueType  string `help:"Type of the subscriptions' queues: ${enum}. Existing queues keep their type." enum:"classic,quorum" default:"classic" env:"POSTHORN_QUEUE_TYPE"`
	Persistent bool   `name:"persistent-messages" help:"Have RabbitMQ sync the messages of subscriptions to disk as well. They are in Postgres in any case." env:"POSTHORN_PERSISTENT_MESSAGES"`
	Namespace  string `help:"Prefix of every exchange and queue name, so that installations can share a broker." env:"POSTHORN_NAMESPACE"`
}

func (f brokerFlags) config(part string, logger *slog.Logger) (broker.Config, error) {
	address, err := f.url()
	return broker.Config{URL: address, Namespace: f.Namespace, QueueType: f.QueueType, Persistent: f.Persistent, ConnectionName: "posthorn " + part, Logger: logger}, err
}

// url is AMQP_URL with the password from AMQP_PASSWORD if it has a user and no
// password, so that a password need not be escaped for a URL.
func (f brokerFlags) url() (string, error) {
	u, err := serverurl.Parse(f.AMQPURL, []string{"amqp", "amqps"}, "amqp://user:password@host:5672/vhost", "AMQP_PASSWORD")
	if err != nil {
		return "", fmt.Errorf("AMQP_URL: %w", err)
	}
	if f.Password == "" || u.User == nil {
		return f.AMQPURL, nil
	}
	if _, has := u.User.Password(); has || u.User.Username() == "" {
		return f.AMQPURL, nil
	}
	u.User = url.UserPassword(u.User.Username(), f.Password)
	return u.String(), nil
}

type hostFlags struct {
	Hosts []string `help:"Host names accepted by listeners that need no key, in addition to IP addresses, localhost and the names they listen on." placeholder:"posthorn.example.com" env:"POSTHORN_HOSTS"`
}

// on returns the names for a listener on an address.
func (f hostFlags) on(addr string) (web.Hosts, error) {
	hosts, err := web.ParseHosts(f.Hosts, addr)
	if err != nil {
		return hosts, fmt.Errorf("POSTHORN_HOSTS: %w", err)
	}
	return hosts, nil
}

type httpFlags struct {
	HTTPAddr string `type:"address" name:"http-addr" help:"Address of the API." default:"127.0.0.1:3000" env:"HTTP_ADDR"`
	AdminKey string `help:"Key that every request to the API must carry. If unset, the API needs no key and listens on loopback only." env:"POSTHORN_ADMIN_KEY"`
	Open     bool   `help:"Serve without a key on addresses other than loopback." env:"POSTHORN_OPEN"`
}

type keyFlags struct {
	SecretKey string `help:"32 bytes in base64 that encrypt signing secrets at rest and sign the messages between relay and delivery; several, separated by commas, to rotate (the first encrypts)." env:"POSTHORN_SECRET_KEY"`
	DataDir   string `help:"Directory for the generated key, in open mode without POSTHORN_SECRET_KEY." default:".posthorn" env:"POSTHORN_DATA_DIR"`
}

// access says which clients may call the API.
type access struct {
	adminKey string
	open     bool
}

// publicKey is the default of docker-compose.yml, which is public.
const publicKey = "posthorn-development-key-32bytes"

// isPublic reports whether publicKey is among keys in base64.
func isPublic(keys string) bool {
	public := base64.RawStdEncoding.EncodeToString([]byte(publicKey))
	for key := range strings.SplitSeq(keys, ",") {
		if strings.TrimRight(strings.TrimSpace(key), "=") == public {
			return true
		}
	}
	return false
}

// keyring is the given key or, on loopback without an admin key, the generated
// one.
func (f keyFlags) keyring(by access) (*signing.Keyring, error) {
	if f.SecretKey != "" {
		if by.adminKey != "" && isPublic(f.SecretKey) {
			return nil, errors.New("POSTHORN_SECRET_KEY is the public key of docker-compose.yml, which must not be used with POSTHORN_ADMIN_KEY; generate one: head -c 32 /dev/urandom | base64")
		}
		keys, err := signing.ParseKeyring(f.SecretKey)
		if err != nil {
			return nil, fmt.Errorf("POSTHORN_SECRET_KEY: %w", err)
		}
		return keys, nil
	}
	if by.adminKey != "" || by.open {
		return nil, errors.New("POSTHORN_SECRET_KEY is not set: it encrypts signing secrets and signs messages, and must be the same for api, relay and delivery; generate one: head -c 32 /dev/urandom | base64")
	}
	if err := os.MkdirAll(f.DataDir, 0o711); err != nil { //nolint:gosec // private servers of other users may live below
		return nil, fmt.Errorf("create data folder: %w", err)
	}
	return signing.LoadOrCreateKeyFile(filepath.Join(f.DataDir, "secret.key"))
}

type deliveryFlags struct {
	AllowNetworks []string `help:"Private networks that deliveries may connect to, as CIDRs." placeholder:"10.1.0.0/16" env:"POSTHORN_ALLOW_NETWORKS"`
	Retry         string   `help:"Delays before the retries of subscriptions that have no schedule." default:"5s,30s,2m,15m,1h,4h,12h" env:"POSTHORN_RETRY_SCHEDULE"`
	MaxRequests   int      `help:"Maximum number of requests to subscribers in flight. 0 means a quarter of the open file limit, at most 4096." placeholder:"N" default:"0" env:"POSTHORN_MAX_REQUESTS"`
}

// networks are the private networks that may be reached. They are logged, with
// a warning for dangerous ones: no other setting weakens the guard.
func (f deliveryFlags) networks(logger *slog.Logger) ([]netip.Prefix, error) {
	networks, err := parseNetworks(f.AllowNetworks)
	if err != nil {
		return nil, err
	}
	if len(networks) > 0 {
		logger.Info("deliveries may reach private networks", "networks", networks)
	}
	for _, network := range networks {
		if danger := dangerOf(network); danger != "" {
			logger.Warn("a network of POSTHORN_ALLOW_NETWORKS is dangerous", "network", network, "reason", danger)
		}
	}
	return networks, nil
}

// parseNetworks parses POSTHORN_ALLOW_NETWORKS.
func parseNetworks(texts []string) (networks []netip.Prefix, err error) {
	for _, text := range texts {
		text = strings.TrimSpace(text)
		prefix, err := netip.ParsePrefix(text)
		if err != nil {
			example := "10.1.0.0/16"
			if addr, err := netip.ParseAddr(text); err == nil && addr.Zone() == "" {
				example = netip.PrefixFrom(addr, addr.BitLen()).String()
			}
			return nil, fmt.Errorf("POSTHORN_ALLOW_NETWORKS: invalid network %q: want a CIDR such as %s", text, example)
		}
		if masked := prefix.Masked(); masked != prefix {
			return nil, fmt.Errorf("POSTHORN_ALLOW_NETWORKS: %q is an address within a network: want %s, or %s/%d for that address alone",
				text, masked, prefix.Addr(), prefix.Addr().BitLen())
		}
		networks = append(networks, prefix)
	}
	return networks, nil
}

// dangerOf says why subscribers should not be able to reach a network.
func dangerOf(network netip.Prefix) string {
	for _, metadata := range [...]string{"169.254.169.254", "fd00:ec2::254", "fd20:ce::254", "100.100.100.200", "192.0.0.192", "168.63.129.16"} {
		if addr := netip.MustParseAddr(metadata); network.Contains(addr) || network.Contains(netip.AddrFrom16(addr.As16())) {
			return "it contains a cloud's metadata address, " + metadata + ", which gives out credentials"
		}
	}
	short := 8
	switch {
	case network.Addr().Is4In6():
		short += 96
	case network.Addr().Is6():
		short = 16
	}
	if network.Bits() < short {
		return fmt.Sprintf("it is larger than a /%d", short)
	}
	return ""
}

func (f deliveryFlags) schedule() (retry.Schedule, error) {
	schedule, err := retry.Parse(strings.Split(f.Retry, ","))
	if err != nil {
		return nil, fmt.Errorf("POSTHORN_RETRY_SCHEDULE: %w", err)
	}
	return schedule, nil
}

type metricsFlags struct {
	profileFlags
	MetricsAddr string `type:"address" help:"Address of /healthz, /readyz and /metrics." env:"METRICS_ADDR"`
}

type readyFlags struct {
	ReadyParts []string `help:"Parts that must be ready for /readyz to return 200: api, relay and delivery. The response shows all of them." enum:"api,relay,delivery" default:"api,relay,delivery" env:"POSTHORN_READY_PARTS"`
}

// migrateWait is how long a starting process waits for Postgres.
const migrateWait = time.Minute
