package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"runtime/debug"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"posthorn/migrations"
	"posthorn/outbox"
	"posthorn/services/api"
	"posthorn/services/delivery"
	"posthorn/services/inbox"
	"posthorn/services/internal/broker"
	"posthorn/services/internal/envelope"
	"posthorn/services/internal/eventlog"
	"posthorn/services/internal/operate"
	"posthorn/services/internal/postgres"
	"posthorn/services/internal/process"
	"posthorn/services/internal/readiness"
	"posthorn/services/internal/sender"
	"posthorn/services/internal/signing"
	"posthorn/services/photos"
	"posthorn/services/relay"
)

const gcPercent = 300

// program is a set of parts that a command assembles and runs together.
type program struct {
	*env
	group     process.Group
	metrics   *prometheus.Registry
	readiness readiness.Parts
	relay     *relay.Relay // nil where it runs elsewhere
}

func newProgram(e *env) *program {
	if os.Getenv("GOGC") == "" {
		// The live heap is small and the allocation rate is high: collecting at
		// twice the live heap would take a sixth of the processor time.
		debug.SetGCPercent(gcPercent)
	}
	p := &program{env: e, group: process.Group{Logger: e.logger}, metrics: prometheus.NewRegistry()}
	p.metrics.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return p
}

// addAPI adds the HTTP API and the projection that it shows. It opens the
// listener, so that a port in use is reported before anything runs.
func (p *program) addAPI(ctx context.Context, db databaseFlags, web httpFlags, named hostFlags, keys keyFlags) error {
	pool, err := db.probed(ctx, "api", 16)
	if err != nil {
		return err
	}
	keyring, err := keys.keyring(access{web.AdminKey, web.Open})
	if err != nil {
		return err
	}
	hosts, err := named.on(web.HTTPAddr)
	if err != nil {
		return err
	}
	operations := operate.New(pool, keyring)
	operations.WakeNear(func() bool { return p.relay != nil && p.relay.Wake() })
	server, err := api.New(api.Config{
		Operations: operations, Products: []api.Product{photos.New(pool)}, Addr: web.HTTPAddr, AdminKey: web.AdminKey, Open: web.Open,
		Logger: p.logger, Version: versionText(), Metrics: p.metrics,
		Readiness: &p.readiness, Hosts: hosts,
	})
	if err != nil {
		return err
	}
	projector, err := photos.NewProjector(photos.Config{DB: pool, Logger: p.logger})
	if err != nil {
		return err
	}
	listener, err := process.Listen(ctx, web.HTTPAddr)
	if err != nil {
		return err
	}
	p.group.Add("http", process.Serve(listener, process.ForMany, server))
	p.group.Add("api", server.Run)
	p.group.Add("photos", projector.Run)
	p.group.Add("partitions", eventlog.KeepPartitions(pool, p.logger))
	p.group.Close("api database", pool.Close)
	return nil
}

func (p *program) addRelay(ctx context.Context, db databaseFlags, mq brokerFlags, keys keyFlags, by access) error {
	keyring, err := keys.keyring(by)
	if err != nil {
		return err
	}
	pool, err := db.probed(ctx, "relay", 6)
	if err != nil {
		return err
	}
	config, err := mq.config("relay", p.logger)
	if err != nil {
		return err
	}
	publisher, err := broker.NewPublisher(config) //nolint:contextcheck // its connection outlives the call that makes it
	if err != nil {
		return err
	}
	topology, err := broker.NewTopology(config) //nolint:contextcheck // its connection outlives the call that makes it
	if err != nil {
		return errors.Join(err, publisher.Close())
	}
	appended, err := postgres.Listen(db.DatabaseURL, "relay", outbox.Channel, p.logger)
	if err != nil {
		return errors.Join(err, publisher.Close(), topology.Close())
	}
	r := relay.New(relay.Config{}, relay.Parts{
		DB: pool, Appended: appended.C(), Publisher: publisher, Topology: topology, Broker: config, Messages: authenticator(keyring),
		Logger: p.logger, Metrics: p.metrics,
	})
	p.relay = r
	p.readiness.Add("relay", r.Ready)
	p.group.Add("relay", r.Run)
	p.group.Close("relay broker", func() error { return errors.Join(publisher.Close(), topology.Close()) })
	p.group.Close("relay database", func() error { return errors.Join(appended.Close(), pool.Close()) })
	return nil
}

func (p *program) addDelivery(ctx context.Context, db databaseFlags, mq brokerFlags, keys keyFlags, by access, flags deliveryFlags) error {
	networks, err := flags.networks(p.logger)
	if err != nil {
		return err
	}
	if flags.MaxRequests < 0 {
		return fmt.Errorf("POSTHORN_MAX_REQUESTS: invalid number %d: want 0 or more", flags.MaxRequests)
	}
	schedule, err := flags.schedule()
	if err != nil {
		return err
	}
	keyring, err := keys.keyring(by)
	if err != nil {
		return err
	}
	pool, err := db.probed(ctx, "delivery", 8)
	if err != nil {
		return err
	}
	config, err := mq.config("delivery", p.logger)
	if err != nil {
		return err
	}
	consumers, err := broker.NewConsumers(config)
	if err != nil {
		return err
	}
	publisher, err := broker.NewPublisher(config) //nolint:contextcheck // its connection outlives the call that makes it
	if err != nil {
		return err
	}
	topology, err := broker.NewTopology(config) //nolint:contextcheck // as above
	if err != nil {
		return errors.Join(err, publisher.Close())
	}
	requests, idle := delivery.Capacity(flags.MaxRequests)
	s := delivery.New(delivery.Config{Schedule: schedule, MaxInFlight: requests}, delivery.Parts{
		DB: pool, Keys: keyring, Messages: authenticator(keyring), Broker: config, Publisher: publisher, Topology: topology, Consumers: consumers,
		Sender: sender.New(sender.Config{
			AllowNetworks: networks, UserAgent: "Posthorn/" + versionText(), MaxIdle: idle,
		}),
		Logger: p.logger, Metrics: p.metrics,
	})
	p.readiness.Add("delivery", s.Ready)
	p.group.Add("delivery", s.Run)
	p.group.Close("delivery broker", func() error { return errors.Join(publisher.Close(), topology.Close()) })
	p.group.Close("delivery database", pool.Close)
	return nil
}

// authenticator signs and verifies the messages between relay and delivery.
func authenticator(keys *signing.Keyring) *envelope.Authenticator {
	return envelope.NewAuthenticator(keys.Derive(envelope.Purpose))
}

func (p *program) addInbox(ctx context.Context, addr string, named hostFlags) error {
	hosts, err := named.on(addr)
	if err != nil {
		return err
	}
	box := inbox.New(inbox.Config{Logger: p.logger})
	listener, err := process.Listen(ctx, addr)
	if err != nil {
		return err
	}
	// Pages that follow changes and requests that hang would delay the server's
	// shutdown.
	p.group.Close("inbox pages", func() error { box.Close(); return nil })
	p.group.Add("inbox", process.Serve(listener, process.ForMany, hosts.Handler(box)))
	return nil
}

// addMetrics serves the health and the metrics of parts without an HTTP server,
// and profiles. Without an address it does nothing.
func (p *program) addMetrics(ctx context.Context, flags metricsFlags) error {
	if err := p.addProfiles(ctx, flags.profileFlags); err != nil {
		return err
	}
	if flags.MetricsAddr == "" {
		return nil
	}
	hosts, err := flags.on(flags.MetricsAddr)
	if err != nil {
		return err
	}
	listener, err := process.Listen(ctx, flags.MetricsAddr)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok\n")) })
	mux.Handle("GET /readyz", &p.readiness)
	mux.Handle("GET /metrics", promhttp.HandlerFor(p.metrics, promhttp.HandlerOpts{}))
	p.group.Add("metrics", process.Serve(listener, process.ForFew, hosts.Handler(mux)))
	return nil
}

// migrate migrates the schema, and waits for a Postgres that is still starting.
func (p *program) migrate(ctx context.Context, db databaseFlags) error {
	pool, err := db.open("migrate", 4)
	if err != nil {
		return err
	}
	defer func() { _ = pool.Close() }()
	deadline, cancel := context.WithTimeout(ctx, migrateWait)
	defer cancel()
	for told := false; ; {
		// Report permanent errors at once.
		if err := postgres.Probe(deadline, pool); err != nil {
			return err
		}
		err := migrations.Up(deadline, pool)
		if err == nil || ctx.Err() != nil {
			return err
		}
		if !errors.Is(postgres.Translate(err), postgres.ErrUnavailable) || deadline.Err() != nil {
			return err
		}
		if !told {
			told = true
			p.logger.Warn("waiting for postgres", "error", err)
		}
		select {
		case <-time.After(500 * time.Millisecond):
		case <-deadline.Done():
			return fmt.Errorf("wait for postgres: %w", err)
		}
	}
}

func (p *program) run(ctx context.Context) error { return p.group.Run(ctx) }

// hostURL is the address of a listener for display; without a host it is
// localhost.
func hostURL(addr string) string {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return "http://" + addr
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && (ip.IsLoopback() || ip.IsUnspecified()) {
		host = "localhost"
	}
	return "http://" + net.JoinHostPort(host, port)
}
