package faults

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"posthorn/services/internal/proxy"
	"posthorn/services/lab/site"
)

// connections are the faults of the connections to both servers.
func connections() []Scenario {
	type choice = func(*Cluster) *proxy.Proxy
	toPostgres := func(c *Cluster) *proxy.Proxy { return c.toPostgres }
	toRabbitMQ := func(c *Cluster) *proxy.Proxy { return c.toRabbitMQ }
	cuts := func(l choice) func(context.Context, *Cluster) error {
		return func(ctx context.Context, c *Cluster) error {
			return repeat(5, func() error {
				err := cut(ctx, l(c), 200*time.Millisecond)
				site.Pause(ctx, 800*time.Millisecond)
				return err
			})
		}
	}
	// broken makes a connection misbehave, in both directions, for a while.
	broken := func(l choice, how func(*proxy.Proxy), d time.Duration) func(context.Context, *Cluster) error {
		return func(ctx context.Context, c *Cluster) error {
			how(l(c))
			site.Pause(ctx, d)
			l(c).Heal()
			return nil
		}
	}
	slower := func(l *proxy.Proxy) { l.Delay(500 * time.Millisecond) }
	throttled := func(l *proxy.Proxy) { l.Limit(10_000) }
	return []Scenario{
		{Name: "connections to RabbitMQ cut 5 times", Bound: 5 * inFlight, Quick: true, Inject: cuts(toRabbitMQ)},
		{Name: "RabbitMQ unreachable for 10 s", Bound: inFlight, Inject: func(ctx context.Context, c *Cluster) error {
			return cut(ctx, c.toRabbitMQ, 10*time.Second)
		}},
		{Name: "connection to RabbitMQ dead for 15 s", Bound: inFlight, Inject: broken(toRabbitMQ, (*proxy.Proxy).Silence, 15*time.Second)},
		{Name: "connection to RabbitMQ slower by 500 ms", Inject: broken(toRabbitMQ, slower, 10*time.Second)},
		{Name: "connection to RabbitMQ of 10 KB/s", Bound: inFlight, Inject: broken(toRabbitMQ, throttled, 10*time.Second)},
		{Name: "RabbitMQ stopped (SIGSTOP) for 20 s", Bound: inFlight, Inject: func(ctx context.Context, c *Cluster) error {
			err := syscall.Kill(c.RabbitMQ.PID(), syscall.SIGSTOP)
			site.Pause(ctx, 20*time.Second)
			return errors.Join(err, syscall.Kill(c.RabbitMQ.PID(), syscall.SIGCONT))
		}},
		{Name: "all connections closed by RabbitMQ 100 times", Bound: 100 * inFlight, Inject: closed},
		{Name: "connections to Postgres cut 5 times", Bound: 5 * inFlight, Inject: cuts(toPostgres)},
		{Name: "connection to Postgres dead for 10 s", Bound: inFlight, Inject: broken(toPostgres, (*proxy.Proxy).Silence, 10*time.Second)},
		{Name: "connection to Postgres slower by 500 ms", Inject: broken(toPostgres, slower, 10*time.Second)},
		{Name: "connection to Postgres of 10 KB/s", Bound: inFlight, Inject: broken(toPostgres, throttled, 10*time.Second)},
	}
}

// cut breaks all connections of a proxy and refuses new ones for a while.
func cut(ctx context.Context, l *proxy.Proxy, d time.Duration) error {
	l.Cut()
	site.Pause(ctx, d)
	return l.Mend(ctx)
}

// closed makes the broker close all connections a hundred times. None of them
// may leave anything behind.
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
	site.Pause(ctx, 10*time.Second)
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
