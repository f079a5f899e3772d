package faults

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"
	"time"

	"posthorn/services/lab/site"
)

// inFlight is the maximum that the two deliveries have in flight for the three
// subscriptions, and so the number that one crash may repeat.
const inFlight = 2 * 3 * 8

// Suite returns every fault that this machine can inject. Parts are killed at
// random for the given time.
func Suite(random time.Duration) []Scenario {
	kill := func(part, point string, bound int, quick bool) Scenario {
		return Scenario{
			Name: "kill -9 at " + point, Bound: bound, Failpoints: map[string]string{part: point + "=kill@20"}, Quick: quick,
		}
	}
	suite := []Scenario{
		{Name: "no fault", Quick: true, Inject: wait(3 * time.Second)},
		{Name: "SIGTERM of every part in turn, twice", Quick: true, Inject: rolling},
		kill("api", "append.before_commit", 0, false),
		kill("api", "append.after_commit", 0, true),
		kill("relay", "relay.after_publish", 0, true),
		kill("relay", "relay.after_advance", 0, false),
		kill("delivery", "delivery.after_post", inFlight, true),
		kill("delivery", "delivery.after_record", inFlight, false),
		{
			Name: "kill -9 at delivery.after_next", Bound: inFlight, Failpoints: map[string]string{"delivery": "delivery.after_next=kill@5"},
			Inject: behave(Failing, 3*time.Second),
		},
		{Name: "SIGSTOP of the leading relay for 20 s, with a standby", Bound: 0, Inject: stopped("relay", 20*time.Second)},
		{Name: "SIGSTOP of a delivery for 25 s", Bound: inFlight, Inject: stopped("delivery", 25*time.Second)},
		{Name: "Postgres killed and started", Bound: inFlight, Inject: func(ctx context.Context, c *Cluster) error {
			return errors.Join(c.Postgres.Kill(), c.Postgres.Restart(ctx)) //nolint:contextcheck // a kill has a deadline of its own
		}},
		{Name: "RabbitMQ restarted", Bound: inFlight, Inject: func(ctx context.Context, c *Cluster) error { return c.RabbitMQ.Restart(ctx) }},
		{Name: "RabbitMQ killed and started", Bound: inFlight, Inject: func(ctx context.Context, c *Cluster) error {
			return errors.Join(c.RabbitMQ.Kill(), c.RabbitMQ.Restart(ctx)) //nolint:contextcheck // a kill has a deadline of its own
		}},
		{Name: "RabbitMQ killed and started, half a second after 20 subscriptions were made", Bound: inFlight, Inject: undurable},
		{Name: "RabbitMQ wiped", Bound: inFlight, Inject: func(ctx context.Context, c *Cluster) error { return c.RabbitMQ.Wipe(ctx) }},
		{Name: "memory alarm for 10 s", Bound: inFlight, Inject: func(ctx context.Context, c *Cluster) error {
			err := c.ctl(ctx, "set_vm_memory_high_watermark", "0.00001")
			site.Pause(ctx, 10*time.Second)
			return errors.Join(err, c.ctl(ctx, "set_vm_memory_high_watermark", "absolute", "2GB"))
		}},
		{Name: "disk alarm for 10 s", Bound: inFlight, Inject: func(ctx context.Context, c *Cluster) error {
			err := c.ctl(ctx, "set_disk_free_limit", "1000000000000")
			site.Pause(ctx, 10*time.Second)
			return errors.Join(err, c.ctl(ctx, "set_disk_free_limit", "50MB"))
		}},
		{Name: "transaction with an id open for 5 s", Inject: func(ctx context.Context, c *Cluster) error {
			tx, err := c.db.BeginTx(ctx, nil)
			if err != nil {
				return fmt.Errorf("begin: %w", err)
			}
			_, err = tx.ExecContext(ctx, "SELECT pg_current_xact_id()")
			before := c.Sink.Taken("a")
			site.Pause(ctx, 5*time.Second)
			if c.Sink.Taken("a") < before+100 {
				err = errors.Join(err, errors.New("deliveries stalled meanwhile"))
			}
			return errors.Join(err, tx.Rollback())
		}},
		hostile(Hang, true), hostile(Slowloris, false), hostile(ResetAfter, false), hostile(Failing, false), hostile(Throttling, false),
		hostile(Redirect, false), hostile(HeaderBomb, false), hostile(Gone, false),
		{Name: "a subscriber that flaps", Inject: behave(Flapping, 5*time.Second)},
		{Name: "dump restored into another Postgres, with an empty RabbitMQ", Inject: restored},
	}
	suite = append(suite, clocks()...)
	return slices.Concat(suite, losses(), connections(), mistakes(), records(), changes(), resources(), callers(), []Scenario{randomKills(random)})
}

// undurable kills RabbitMQ when the relay's declarations are not on its disk: it does not sync
// declarations, and may come back without a queue, or one of its bindings.
func undurable(ctx context.Context, c *Cluster) error {
	if err := crowd(20, "T.1")(ctx, c); err != nil {
		return err
	}
	site.Pause(ctx, 500*time.Millisecond)
	return errors.Join(c.RabbitMQ.Kill(), c.RabbitMQ.Restart(ctx)) //nolint:contextcheck // a kill has a deadline of its own
}

// randomKills kills a random part every two seconds.
func randomKills(d time.Duration) Scenario {
	return Scenario{
		Name: fmt.Sprintf("kill -9 of a part at random every 2 s for %v", d), Bound: int(d/(2*time.Second)+1) * inFlight,
		Inject: func(ctx context.Context, c *Cluster) error {
			names := usualParts()
			return repeat(int(d/(2*time.Second)), func() error {
				err := c.parts[names[c.chance.IntN(len(names))]].Signal(syscall.SIGKILL)
				site.Pause(ctx, 2*time.Second)
				return err
			})
		},
	}
}

func wait(d time.Duration) func(context.Context, *Cluster) error {
	return func(ctx context.Context, _ *Cluster) error {
		site.Pause(ctx, d)
		return nil
	}
}

func repeat(n int, f func() error) error {
	for range n {
		if err := f(); err != nil {
			return err
		}
	}
	return nil
}

// rolling stops each part as a deploy does, and waits for its successor.
func rolling(ctx context.Context, c *Cluster) error {
	return repeat(2, func() error {
		for _, name := range usualParts() {
			p := c.parts[name]
			before := p.Starts()
			if err := p.Signal(syscall.SIGTERM); err != nil {
				return err
			}
			if err := site.Await(ctx, 45*time.Second, name+" is replaced", func() bool { return p.Starts() > before }); err != nil {
				return err
			}
			if n := p.Crashes(); n > 0 {
				return fmt.Errorf("%s did not stop cleanly", name)
			}
			site.Pause(ctx, 500*time.Millisecond)
		}
		return nil
	})
}

func stopped(name string, d time.Duration) func(context.Context, *Cluster) error {
	return func(ctx context.Context, c *Cluster) error {
		err := c.parts[name].Signal(syscall.SIGSTOP)
		site.Pause(ctx, d)
		err = errors.Join(err, c.parts[name].Signal(syscall.SIGCONT))
		site.Pause(ctx, 2*time.Second)
		return err
	}
}

// behave makes one subscriber misbehave for a while.
func behave(mode Mode, d time.Duration) func(context.Context, *Cluster) error {
	return func(ctx context.Context, c *Cluster) error {
		c.Sink.Behave("victim", mode)
		site.Pause(ctx, d)
		c.Sink.Behave("victim", Well)
		return nil
	}
}

// hostile makes a subscriber accept nothing for a while; the others must not
// notice.
func hostile(mode Mode, quick bool) Scenario {
	return Scenario{Name: "a subscriber that does " + string(mode), Quick: quick, Inject: func(ctx context.Context, c *Cluster) error {
		c.Sink.Behave("victim", mode)
		site.Pause(ctx, time.Second)
		before := c.Sink.Taken("b")
		site.Pause(ctx, 4*time.Second)
		taken := c.Sink.Taken("b") - before
		c.Sink.Behave("victim", Well)
		// b gets a third of 100 per second.
		if taken < 60 {
			return fmt.Errorf("another subscriber got only %d events in 4 s", taken)
		}
		return nil
	}}
}

// backlogged runs f while messages wait in a subscriber's queue.
func backlogged(f func(context.Context, *Cluster) error) func(context.Context, *Cluster) error {
	return func(ctx context.Context, c *Cluster) error {
		c.Sink.Behave("victim", Hang)
		site.Pause(ctx, 4*time.Second)
		err := f(ctx, c)
		c.Sink.Behave("victim", Well)
		return err
	}
}

// NotRun returns the faults that one machine, or one program on it, cannot
// cause, with the reason.
func NotRun() [][2]string {
	return [][2]string{
		{
			"clock jumps of relay and delivery",
			"a Go program reads the clock from the kernel's vDSO and not through libc, so libfaketime does not reach it, and Linux' time namespaces " +
				"do not cover the time of day",
		},
		{"failover to an asynchronous replica", "it loses what the replica has not got yet; how much is up to the replica, not to Posthorn"},
		{
			"disk of RabbitMQ full to the last byte",
			"RabbitMQ 3.10 stays up afterwards and takes no connections until somebody starts it again; its own alarm, which comes before, is a row above, and so is a wipe",
		},
		{"upgrade under load from the release before", "there is no release before"},
	}
}
