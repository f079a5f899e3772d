package faults

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"time"

	toxiproxy "github.com/Shopify/toxiproxy/v2"
)

// lines are what can happen to the connections to both servers.
func lines() []Scenario {
	type line = func(*Cluster) *toxiproxy.Proxy
	toPostgres := func(c *Cluster) *toxiproxy.Proxy { return c.toPostgres }
	toRabbitMQ := func(c *Cluster) *toxiproxy.Proxy { return c.toRabbitMQ }
	cuts := func(l line) func(context.Context, *Cluster) error {
		return func(ctx context.Context, c *Cluster) error {
			return repeat(5, func() error {
				err := cut(ctx, l(c), 200*time.Millisecond)
				pause(ctx, 800*time.Millisecond)
				return err
			})
		}
	}
	slow := func(l line, kind, attributes string) func(context.Context, *Cluster) error {
		return func(ctx context.Context, c *Cluster) error {
			return poisoned(ctx, l(c), kind, attributes, 10*time.Second)
		}
	}
	return []Scenario{
		{Name: "connections to RabbitMQ cut 5 times", Bound: 5 * inFlight, Quick: true, Inject: cuts(toRabbitMQ)},
		{Name: "RabbitMQ unreachable for 10 s", Bound: inFlight, Inject: func(ctx context.Context, c *Cluster) error {
			return cut(ctx, c.toRabbitMQ, 10*time.Second)
		}},
		{Name: "line to RabbitMQ dead for 15 s", Bound: inFlight, Inject: func(ctx context.Context, c *Cluster) error {
			return poisoned(ctx, c.toRabbitMQ, "timeout", `{"timeout":0}`, 15*time.Second)
		}},
		{Name: "line to RabbitMQ slower by 500 ms", Inject: slow(toRabbitMQ, "latency", `{"latency":500}`)},
		{Name: "line to RabbitMQ of 10 KB/s", Bound: inFlight, Inject: slow(toRabbitMQ, "bandwidth", `{"rate":10}`)},
		{Name: "RabbitMQ stopped (SIGSTOP) for 20 s", Bound: inFlight, Inject: func(ctx context.Context, c *Cluster) error {
			err := syscall.Kill(c.RabbitMQ.PID(), syscall.SIGSTOP)
			pause(ctx, 20*time.Second)
			return errors.Join(err, syscall.Kill(c.RabbitMQ.PID(), syscall.SIGCONT))
		}},
		{Name: "all connections closed by RabbitMQ 100 times", Bound: 100 * inFlight, Inject: closed},
		{Name: "connections to Postgres cut 5 times", Bound: 5 * inFlight, Inject: cuts(toPostgres)},
		{Name: "line to Postgres dead for 10 s", Bound: inFlight, Inject: func(ctx context.Context, c *Cluster) error {
			return poisoned(ctx, c.toPostgres, "timeout", `{"timeout":0}`, 10*time.Second)
		}},
		{Name: "line to Postgres slower by 500 ms", Inject: slow(toPostgres, "latency", `{"latency":500}`)},
		{Name: "line to Postgres of 10 KB/s", Bound: inFlight, Inject: slow(toPostgres, "bandwidth", `{"rate":10}`)},
	}
}

// poisoned has a line misbehave in both directions for a while.
func poisoned(ctx context.Context, line *toxiproxy.Proxy, kind, attributes string, d time.Duration) error {
	if err := poison(line, kind, attributes); err != nil {
		return err
	}
	pause(ctx, d)
	line.Toxics.ResetToxics(ctx)
	return nil
}

func poison(line *toxiproxy.Proxy, kind, attributes string) error {
	for _, stream := range []string{"upstream", "downstream"} {
		_, err := line.Toxics.AddToxicJson(strings.NewReader(
			fmt.Sprintf(`{"name":%q,"type":%q,"stream":%q,"attributes":%s}`, kind+"-"+stream, kind, stream, attributes)))
		if err != nil {
			return fmt.Errorf("poison line: %w", err)
		}
	}
	return nil
}

// cut breaks all connections of a line and refuses new ones for a while.
func cut(ctx context.Context, line *toxiproxy.Proxy, d time.Duration) error {
	line.Stop()
	pause(ctx, d)
	if err := line.Start(); err != nil {
		return fmt.Errorf("mend line: %w", err)
	}
	return nil
}

// closed has the broker close all connections, a hundred times. Nothing may
// stay behind of any of them.
func closed(ctx context.Context, c *Cluster) error {
	before, err := c.goroutines(ctx)
	if err != nil {
		return err
	}
	err = c.ctl(ctx, "eval", `[begin [rabbit_networking:close_connection(P, "faults") || P <- rabbit_networking:connections()], timer:sleep(300) end
		|| _ <- lists:seq(1, 100)], ok.`)
	if err != nil {
		return err
	}
	pause(ctx, 10*time.Second)
	after, err := c.goroutines(ctx)
	if err != nil {
		return err
	}
	for name, n := range after {
		if n > before[name]*1.5+20 {
			return fmt.Errorf("%s has %.0f goroutines, it had %.0f", name, n, before[name])
		}
	}
	return nil
}

func (c *Cluster) goroutines(ctx context.Context) (map[string]float64, error) {
	all := map[string]float64{}
	for name := range c.parts {
		n, err := c.metric(ctx, name, "go_goroutines")
		if err != nil {
			return nil, err
		}
		all[name] = n
	}
	return all, nil
}
