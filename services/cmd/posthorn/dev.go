package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"posthorn/services/internal/privateserver"
	"posthorn/services/internal/process"
)

type devCmd struct {
	DatabaseURL string `help:"Postgres to use instead of a private one." env:"DATABASE_URL"`
	AMQPURL     string `name:"amqp-url" help:"RabbitMQ to use instead of a private one." env:"AMQP_URL"`
	QueueType   string `enum:"classic,quorum" default:"classic" env:"POSTHORN_QUEUE_TYPE" help:"Type of the subscriptions' queues: ${enum}."`
	httpFlags
	keyFlags
	deliveryFlags
	metricsFlags
	readyFlags
	InboxAddr string `type:"address" help:"Address of the inbox." default:"127.0.0.1:3001" env:"INBOX_ADDR"`
}

// stopServers is how long the private servers may take to shut down.
const stopServers = 30 * time.Second

// servers are the private servers that a dev run started.
type servers struct {
	postgres *privateserver.Postgres
	rabbit   *privateserver.RabbitMQ
}

func (c *devCmd) Run(ctx context.Context, e *env) (err error) {
	begun := time.Now()
	dir, err := privateserver.DataDir(c.DataDir)
	if err != nil {
		return err
	}
	c.DataDir = dir
	// Check settings and ports first: with invalid ones nothing should start.
	if _, err := parseNetworks(c.AllowNetworks); err != nil {
		return err
	}
	for _, addr := range []string{c.HTTPAddr, c.InboxAddr} {
		l, err := process.Listen(ctx, addr)
		if err != nil {
			return fmt.Errorf("%w; set HTTP_ADDR or INBOX_ADDR to use another port", err)
		}
		if err := l.Close(); err != nil {
			return err
		}
	}
	private, err := c.start(ctx, e)
	defer func() { err = errors.Join(err, private.stop(ctx, e)) }()
	if err != nil {
		return err
	}
	if len(c.AllowNetworks) == 0 {
		c.AllowNetworks = []string{"127.0.0.0/8", "::1/128"}
	}
	all := runCmd{
		databaseFlags: databaseFlags{c.DatabaseURL}, brokerFlags: brokerFlags{AMQPURL: c.AMQPURL, QueueType: c.QueueType},
		httpFlags: c.httpFlags, keyFlags: c.keyFlags, deliveryFlags: c.deliveryFlags, metricsFlags: c.metricsFlags,
		readyFlags: c.readyFlags,
	}
	p := newProgram(e)
	say(e, "Migrating the database ...")
	if err := p.migrate(ctx, all.databaseFlags); err != nil {
		return err
	}
	if err := all.assemble(ctx, p); err != nil {
		return err
	}
	if err := p.addInbox(ctx, c.InboxAddr, c.hostFlags); err != nil {
		return err
	}
	p.group.Add("private servers", private.watch)
	c.welcome(e, private, time.Since(begun))
	err = p.run(ctx)
	say(e, "Drained.")
	return err
}

// start concurrently starts the servers for which no URL was given.
func (c *devCmd) start(ctx context.Context, e *env) (*servers, error) {
	s := &servers{}
	var mu sync.Mutex
	progress := func(server string) func(string) {
		return func(step string) {
			mu.Lock()
			defer mu.Unlock()
			say(e, "%s: %s", server, step)
		}
	}
	// Progress already reports their steps.
	quiet := slog.New(slog.DiscardHandler)
	var g errgroup.Group
	if c.DatabaseURL == "" {
		g.Go(func() (err error) {
			s.postgres, err = privateserver.StartPostgres(ctx, privateserver.Options{
				Dir: filepath.Join(c.DataDir, "postgres"), Logger: quiet, Progress: progress("Postgres"),
			})
			if err == nil {
				c.DatabaseURL = s.postgres.URL()
			}
			return err
		})
	}
	if c.AMQPURL == "" {
		g.Go(func() (err error) {
			s.rabbit, err = privateserver.StartRabbitMQ(ctx, privateserver.Options{
				Dir: filepath.Join(c.DataDir, "rabbitmq"), ManagementPort: 15672, Logger: quiet, Progress: progress("RabbitMQ"),
			})
			if err == nil {
				c.AMQPURL = s.rabbit.URL()
			}
			return err
		})
	}
	return s, g.Wait()
}

// watch returns when a private server exits; the parts alone would wait for it.
func (s *servers) watch(ctx context.Context) error {
	var postgres, rabbit <-chan struct{}
	if s.postgres != nil {
		postgres = s.postgres.Done()
	}
	if s.rabbit != nil {
		rabbit = s.rabbit.Done()
	}
	select {
	case <-ctx.Done():
		return nil
	case <-postgres:
		return errors.New("the private Postgres exited unexpectedly; its log is in the data folder")
	case <-rabbit:
		return errors.New("the private RabbitMQ exited unexpectedly; its log is in the data folder")
	}
}

func (s *servers) stop(ctx context.Context, e *env) error {
	if s.postgres == nil && s.rabbit == nil {
		return nil
	}
	say(e, "Stopping the private servers ...")
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopServers)
	defer cancel()
	var g errgroup.Group
	if s.postgres != nil {
		g.Go(func() error { return s.postgres.Stop(ctx) })
	}
	if s.rabbit != nil {
		g.Go(func() error { return s.rabbit.Stop(ctx) })
	}
	return g.Wait()
}

// welcome prints where everything is and what to try.
func (c *devCmd) welcome(e *env, s *servers, took time.Duration) {
	api, inbox := hostURL(c.HTTPAddr), hostURL(c.InboxAddr)
	var b strings.Builder
	fmt.Fprintf(&b, "\nPosthorn is ready, after %.1f s.\n\n", took.Seconds())
	fmt.Fprintf(&b, "  API        %s       described at %s/docs\n", api, api)
	fmt.Fprintf(&b, "  Inbox      %s       shows the requests that it receives\n", inbox)
	if s.rabbit != nil {
		fmt.Fprintf(&b, "  RabbitMQ   %s   user %s, password %s\n",
			strings.TrimSuffix(strings.Replace(s.rabbit.ManagementURL(), "127.0.0.1", "localhost", 1), "/"), s.rabbit.User(), s.rabbit.Password())
	} else {
		fmt.Fprintf(&b, "  RabbitMQ   from AMQP_URL\n")
	}
	if s.postgres != nil {
		fmt.Fprintf(&b, "  Postgres   %s\n", s.postgres.URL())
	} else {
		fmt.Fprintf(&b, "  Postgres   from DATABASE_URL\n")
	}
	fmt.Fprintf(&b, "  Data       %s\n", c.DataDir)
	fmt.Fprintf(&b, `
Subscribe a URL, then like a photo:

  curl %[1]s/subscription --request POST -H "Content-Type: application/json" \
      --data '{ "url": "%[2]s/my-album", "eventTypes": ["LIKED_PHOTO"] }'
  curl %[1]s/like/123

and see the webhook at %[2]s/my-album

Ctrl-C stops all of it.

`, api, inbox)
	_, _ = fmt.Fprint(e.out, b.String())
}

func say(e *env, format string, args ...any) {
	_, _ = fmt.Fprintf(e.out, format+"\n", args...)
}
