package faults

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"posthorn/services/lab/site"
)

// records are bad records in the log, and expensive bindings, which must not
// affect other subscribers.
func records() []Scenario {
	return []Scenario{
		{Name: "records that cannot be read or forwarded, under load", Quick: true, Inject: malformed},
		{Name: "a binding made by hand that keeps the exchange busy with one event", Bound: inFlight, Inject: busyExchange},
	}
}

// malformed appends rows that no interface accepts, as the owner of the tables can.
func malformed(ctx context.Context, c *Cluster) error {
	if _, err := c.db.ExecContext(ctx, `
		DO $$
		DECLARE c record;
		BEGIN
			FOR c IN SELECT conname FROM pg_constraint WHERE conrelid = 'posthorn.outbox'::regclass AND contype = 'c' LOOP
				EXECUTE format('ALTER TABLE posthorn.outbox DROP CONSTRAINT %I', c.conname);
			END LOOP;
		END $$`); err != nil {
		return fmt.Errorf("drop the log's checks: %w", err)
	}
	before := c.Sink.Taken("b")
	for _, row := range [][]any{ // type, data, time, account, kind
		{"T.1", `{}`, "infinity", "default", "event"},
		{"T.1", `{}`, "4713-01-01 BC", "default", "event"},
		{"T.1", `\xff00`, "now", "default", "event"},
		{"", `{}`, "now", "default", "event"},
		{"T.1", `{}`, "now", "nobody", "event"},
		{"T.1", `{}`, "now", "?", "event"},
		{"T.1", `{`, "now", "default", "subscription"},
		{"T.1", `{}`, "now", "default", "future"},
	} {
		if _, err := c.db.ExecContext(ctx, `
			INSERT INTO posthorn.outbox (id, type, data, occurred_at, account, kind)
			VALUES ('malformed', $1, $2::text::bytea, $3::text::timestamptz, $4, $5)`, row...); err != nil {
			return fmt.Errorf("append %v: %w", row, err)
		}
		site.Pause(ctx, 300*time.Millisecond)
	}
	if n := c.Sink.Taken("b") - before; n < 30 {
		return fmt.Errorf("another subscriber got only %d events meanwhile", n)
	}
	return c.logged("record is set aside", "occurred_at is infinity")
}

// busyExchange makes RabbitMQ try many ways to match one event.
func busyExchange(ctx context.Context, c *Cluster) (err error) {
	queue := "/queues/%2F/" + c.Namespace + "foreign"
	if err := c.Manage(ctx, http.MethodPut, queue, map[string]any{"durable": true}, nil); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Manage(ctx, http.MethodDelete, queue, nil, nil)) }()
	// It begins with a word that only that event has, so that the others cost nothing.
	pattern := "w" + strings.Repeat(".#", 70)
	binding := "/bindings/%2F/e/" + c.Namespace + "events/q/" + c.Namespace + "foreign"
	if err := c.Manage(ctx, http.MethodPost, binding, map[string]any{"routing_key": pattern}, nil); err != nil {
		return err
	}
	var position int64
	if _, err := c.db.ExecContext(ctx, `SELECT posthorn.append_event('w.a.b.c.d')`); err != nil {
		return fmt.Errorf("append event: %w", err)
	}
	if err := c.db.QueryRowContext(ctx, `SELECT max(position) FROM posthorn.outbox WHERE type = 'w.a.b.c.d'`).Scan(&position); err != nil {
		return fmt.Errorf("find event: %w", err)
	}
	return site.Await(ctx, within, "the log goes on behind it", func() bool {
		var passed bool
		err := c.db.QueryRowContext(ctx, `SELECT position > $1 FROM posthorn.readers WHERE name = 'relay'`, position).Scan(&passed)
		return err == nil && passed
	})
}
