package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"time"

	"posthorn/services/photos"
)

type runCmd struct {
	databaseFlags
	brokerFlags
	httpFlags
	keyFlags
	deliveryFlags
	metricsFlags
	readyFlags
}

func (c *runCmd) Run(ctx context.Context, e *env) error {
	// Report invalid settings before waiting for anything.
	if _, err := c.url(); err != nil {
		return err
	}
	p := newProgram(e)
	if err := p.migrate(ctx, c.databaseFlags); err != nil {
		return err
	}
	if err := c.assemble(ctx, p); err != nil {
		return err
	}
	e.logger.Info("posthorn is running", "api", hostURL(c.HTTPAddr))
	return p.run(ctx)
}

// assemble adds all parts, in the order of the flow.
func (c *runCmd) assemble(ctx context.Context, p *program) error {
	if len(c.ReadyParts) > 0 {
		p.readiness.Count(c.ReadyParts...)
	}
	if err := p.addAPI(ctx, c.databaseFlags, c.httpFlags, c.hostFlags, c.keyFlags); err != nil {
		return err
	}
	if err := p.addRelay(ctx, c.databaseFlags, c.brokerFlags, c.keyFlags, access{c.AdminKey, c.Open}); err != nil {
		return err
	}
	if err := p.addDelivery(ctx, c.databaseFlags, c.brokerFlags, c.keyFlags, access{c.AdminKey, c.Open}, c.deliveryFlags); err != nil {
		return err
	}
	return p.addMetrics(ctx, c.metricsFlags)
}

type apiCmd struct {
	databaseFlags
	httpFlags
	hostFlags
	keyFlags
}

func (c *apiCmd) Run(ctx context.Context, e *env) error {
	p := newProgram(e)
	if err := p.addAPI(ctx, c.databaseFlags, c.httpFlags, c.hostFlags, c.keyFlags); err != nil {
		return err
	}
	e.logger.Info("api is running", "address", hostURL(c.HTTPAddr))
	return p.run(ctx)
}

type relayCmd struct {
	databaseFlags
	brokerFlags
	keyFlags
	metricsFlags
	AdminKey string `hidden:"" env:"POSTHORN_ADMIN_KEY"`
	Open     bool   `hidden:"" env:"POSTHORN_OPEN"`
}

func (c *relayCmd) Run(ctx context.Context, e *env) error {
	p := newProgram(e)
	if err := p.addRelay(ctx, c.databaseFlags, c.brokerFlags, c.keyFlags, access{c.AdminKey, c.Open}); err != nil {
		return err
	}
	if err := p.addMetrics(ctx, c.metricsFlags); err != nil {
		return err
	}
	e.logger.Info("relay is running")
	return p.run(ctx)
}

type deliveryCmd struct {
	databaseFlags
	brokerFlags
	keyFlags
	deliveryFlags
	metricsFlags
	AdminKey string `hidden:"" env:"POSTHORN_ADMIN_KEY"`
	Open     bool   `hidden:"" env:"POSTHORN_OPEN"`
}

func (c *deliveryCmd) Run(ctx context.Context, e *env) error {
	p := newProgram(e)
	if err := p.addDelivery(ctx, c.databaseFlags, c.brokerFlags, c.keyFlags, access{c.AdminKey, c.Open}, c.deliveryFlags); err != nil {
		return err
	}
	if err := p.addMetrics(ctx, c.metricsFlags); err != nil {
		return err
	}
	e.logger.Info("delivery is running")
	return p.run(ctx)
}

type inboxCmd struct {
	hostFlags
	InboxAddr string `type:"address" help:"Address of the inbox." default:"127.0.0.1:3001" env:"INBOX_ADDR"`
}

func (c *inboxCmd) Run(ctx context.Context, e *env) error {
	p := newProgram(e)
	if err := p.addInbox(ctx, c.InboxAddr, c.hostFlags); err != nil {
		return err
	}
	e.logger.Info("inbox is running", "address", hostURL(c.InboxAddr))
	return p.run(ctx)
}

type migrateCmd struct{ databaseFlags }

func (c *migrateCmd) Run(ctx context.Context, e *env) error {
	if err := newProgram(e).migrate(ctx, c.databaseFlags); err != nil {
		return err
	}
	_, err := fmt.Fprintln(e.out, "The schema is up to date.")
	return err
}

type photosCmd struct {
	Rebuild rebuildCmd `cmd:"" help:"Rebuild the like counts from the whole log."`
}

type rebuildCmd struct{ databaseFlags }

func (c *rebuildCmd) Run(ctx context.Context, e *env) error {
	pool, err := c.open("photos", 4)
	if err != nil {
		return err
	}
	defer func() { _ = pool.Close() }()
	projector, err := photos.NewProjector(photos.Config{DB: pool, Logger: e.logger})
	if err != nil {
		return err
	}
	var last int64
	err = projector.Rebuild(ctx, func(position, end int64) {
		last = end
		_, _ = fmt.Fprintf(e.out, "counted up to position %d of %d\n", position, end)
	})
	if err != nil {
		return fmt.Errorf("rebuild like counts: %w", err)
	}
	_, err = fmt.Fprintf(e.out, "The like counts are correct up to position %d.\n", last)
	return err
}

type healthCmd struct {
	URL string `arg:"" help:"URL to query, for example http://127.0.0.1:3000/readyz."`
}

func (c *healthCmd) Run(ctx context.Context, e *env) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.URL, nil)
	if err != nil {
		return fmt.Errorf("ask for health: %w", err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("ask for health: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 4<<10))
	if err != nil {
		return fmt.Errorf("ask for health: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s: %s", c.URL, resp.Status, body)
	}
	_, err = e.out.Write(body)
	return err
}
