package faults

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// records are what somebody puts into the log, or asks of the exchange, that
// must cost nobody else anything.
func records() []Scenario {
	return []Scenario{
		{Name: "records that cannot be read or forwarded, under load", Quick: true, Inject: spoilt},
		{Name: "a binding made by hand that keeps the exchange busy with one event", Bound: inFlight, Inject: busyExchange},
	}
}

// spoilt appends rows that no door admits, as whoever owns the tables can.
func spoilt(ctx context.Context, c *Cluster) error {
	if _, err := c.db.ExecContext(ctx, `
		DO $$
		DECLARE c record;
		BEGIN
			FOR c IN SELECT conname FROM pg_constraint WHERE conrelid = 'posthorn.outbox'::regclass AND contype = 'c' LOOP
				EXECUTE format('ALTER TABLE posthorn.outbox DROP CONSTRAINT %I', c.conname);
			END LOOP;
		END $$`); err != nil {
		return fmt.Errorf("take the checks off the log: %w", err)
	}
	before := c.Sink.Taken("b")
	values := []string{
		`'T.1', '{}', 'infinity', 'default', 'event'`, `'T.1', '{}', '4713-01-01 BC', 'default', 'event'`,
		`'T.1', '\xff00', now(), 'default', 'event'`, `'', '{}', now(), 'default', 'event'`,
		`'T.1', '{}', now(), 'nobody', 'event'`, `'T.1', '{}', now(), '?', 'event'`,
		`'T.1', '{', now(), 'default', 'subscription'`, `'T.1', '{}', now(), 'default', 'future'`,
	}
	for _, row := range values {
		if _, err := c.db.ExecContext(ctx, `
			INSERT INTO posthorn.outbox (id, type, data, occurred_at, account, kind) VALUES ('spoilt', `+row+`)`); err != nil {
			return fmt.Errorf("append %s: %w", row, err)
		}
		pause(ctx, 300*time.Millisecond)
	}
	if n := c.Sink.Taken("b") - before; n < 30 {
		return fmt.Errorf("another subscriber got only %d events meanwhile", n)
	}
	return c.logged("record is set aside", "occurred_at is infinity")
}

// busyExchange has RabbitMQ try many ways to match one event.
func busyExchange(ctx context.Context, c *Cluster) (err error) {
	conn, err := amqp.Dial(c.RabbitMQ.URL())
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	ch, err := conn.Channel()
	if err != nil {
		return fmt.Errorf("open channel: %w", err)
	}
	q, err := ch.QueueDeclare("", false, true, true, false, nil)
	if err != nil {
		return fmt.Errorf("declare queue: %w", err)
	}
	// It begins with a word of that event alone, so that the others cost nothing.
	pattern := "w" + strings.Repeat(".#", 70)
	if err := ch.QueueBind(q.Name, pattern, c.Namespace+"events", false, nil); err != nil {
		return fmt.Errorf("bind: %w", err)
	}
	var position int64
	if _, err := c.db.ExecContext(ctx, `SELECT posthorn.append_event('w.a.b.c.d')`); err != nil {
		return fmt.Errorf("append event: %w", err)
	}
	if err := c.db.QueryRowContext(ctx, `SELECT max(position) FROM posthorn.outbox WHERE type = 'w.a.b.c.d'`).Scan(&position); err != nil {
		return fmt.Errorf("find event: %w", err)
	}
	return await(ctx, within, "the log goes on behind it", func() bool {
		var passed bool
		err := c.db.QueryRowContext(ctx, `SELECT position > $1 FROM posthorn.readers WHERE name = 'relay'`, position).Scan(&passed)
		return err == nil && passed
	})
}
