package faults

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"time"

	"posthorn/services/internal/privateserver"
	"posthorn/services/lab/site"
)

// restored moves the system to another Postgres, by a dump, and another, empty
// RabbitMQ: undelivered and new events are delivered there. No steps are needed
// beyond those here.
func restored(ctx context.Context, c *Cluster) error {
	c.Sink.Behave("victim", Failing)
	site.Pause(ctx, 2*time.Second)
	c.Sink.Behave("victim", Hang)
	site.Pause(ctx, time.Second)
	// Transaction ids in the other Postgres are then lower. A reader that
	// compares them would stop there.
	if _, err := c.db.ExecContext(ctx, `DO $$ BEGIN FOR i IN 1..20000 LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$`); err != nil {
		return fmt.Errorf("use up ids of transactions: %w", err)
	}
	old, err := c.transaction(ctx)
	if err != nil {
		return err
	}
	// Events accepted after the dump are not in it, so stop the API; the
	// producer keeps trying. All other parts work during the dump.
	if err := c.parts["api"].Stop(ctx, 30*time.Second); err != nil {
		return err
	}
	if err := site.Await(ctx, 20*time.Second, "everything is forwarded", func() bool { return c.forwarded(ctx) }); err != nil {
		return err
	}
	var last int64
	if err := c.db.QueryRowContext(ctx, `SELECT max(position) FROM posthorn.outbox`).Scan(&last); err != nil {
		return fmt.Errorf("read the log: %w", err)
	}
	waiting, err := c.unfinished(ctx)
	if err != nil {
		return err
	}
	if waiting < 50 {
		return fmt.Errorf("only %d deliveries are waiting", waiting)
	}
	dump := filepath.Join(c.dir, "dump.sql")
	if err := tool(ctx, c.Postgres, "pg_dump", "--dbname", c.direct, "--file", dump); err != nil {
		return err
	}
	if err := errors.Join(c.killAll(), c.detach()); err != nil {
		return err
	}

	fresh, err := StartServers(ctx, filepath.Join(c.dir, "fresh"))
	if err != nil {
		return err
	}
	c.ends = append(c.ends, fresh.Kill)
	if err := c.attach(ctx, fresh); err != nil {
		return err
	}
	now, err := c.transaction(ctx)
	if err != nil {
		return err
	}
	if now >= old {
		return fmt.Errorf("ids of transactions go on at %d, they were at %d: this shows nothing", now, old)
	}
	if err := tool(ctx, fresh.Postgres, "psql", "--quiet", "--no-psqlrc", "--set", "ON_ERROR_STOP=1", "--file", dump, "--dbname", c.direct); err != nil {
		return err
	}
	c.Sink.Behave("victim", Well)
	c.checks = append(c.checks, func(r run) string { return positions(r.asked, last) })
	return c.startAll(ctx, nil)
}

// forwarded reports whether everything in the log has been forwarded, and has
// been delivered to all but the victim.
func (c *Cluster) forwarded(ctx context.Context) bool {
	var behind, owed int
	err := c.db.QueryRowContext(ctx, `SELECT (SELECT max(position) FROM posthorn.outbox) - (SELECT position FROM posthorn.readers WHERE name = 'relay'),
		(SELECT count(*) FROM posthorn.deliveries WHERE status IN ('pending', 'retrying') AND subscription_id::text <> $1)`,
		bare(c.ids["victim"])).Scan(&behind, &owed)
	return err == nil && behind <= 0 && owed == 0
}

func (c *Cluster) transaction(ctx context.Context) (id int64, err error) {
	if err := c.db.QueryRowContext(ctx, `SELECT pg_current_xact_id()::text::bigint`).Scan(&id); err != nil {
		return 0, fmt.Errorf("read the id of a transaction: %w", err)
	}
	return id, nil
}

// positions checks that positions are unique, and that events beyond last were
// accepted.
func positions(asked []Accepted, last int64) string {
	at := map[int64]string{}
	beyond := false
	for _, a := range asked {
		if !a.OK {
			continue
		}
		if other, ok := at[a.Position]; ok && other != a.ID {
			return fmt.Sprintf("%s and %s have the same position", other, a.ID)
		}
		at[a.Position] = a.ID
		beyond = beyond || a.Position > last
	}
	if !beyond {
		return "nothing was accepted after the restore"
	}
	return ""
}

// tool runs a program of Postgres.
func tool(ctx context.Context, pg *privateserver.Postgres, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, filepath.Join(pg.BinDir(), name), args...) //nolint:gosec // found by privateserver
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, out)
	}
	return nil
}
