package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"posthorn/events"
	"posthorn/services/internal/postgres"
	"posthorn/services/internal/subscription"
)

type deadCmd struct {
	List    listDeadCmd    `cmd:"" help:"List dead deliveries as JSON lines, those of the latest events first."`
	Show    showDeadCmd    `cmd:"" help:"Show a delivery with its attempts and the body of its request."`
	Redrive redriveDeadCmd `cmd:"" help:"Put dead deliveries back to work."`
	Purge   purgeDeadCmd   `cmd:"" help:"Give dead deliveries up; their number has to be confirmed."`
}

// deadFlags select dead deliveries.
type deadFlags struct {
	ErrorClass string    `help:"Only those whose last attempt failed this way: status, timeout, connect, dns, tls, blocked, protocol."`
	Status     int       `help:"Only those whose last attempt was answered with this HTTP status."`
	Since      time.Time `help:"Only those that died at this time or later, such as 2026-01-31T08:00:00Z."`
	Until      time.Time `help:"Only those that died before this time."`
}

func (f deadFlags) filter() postgres.DeadFilter {
	return postgres.DeadFilter{ErrorClass: f.ErrorClass, LastStatus: f.Status, Since: f.Since, Until: f.Until}
}

type listDeadCmd struct {
	databaseFlags
	deadFlags
	Subscription string `help:"Only those to this subscription." placeholder:"sub_..."`
	Limit        int    `short:"n" help:"How many at most." default:"100"`
}

func (c *listDeadCmd) Run(ctx context.Context, e *env) error {
	f := postgres.DeadLetterFilter{Account: events.DefaultAccount, DeadFilter: c.filter(), Limit: c.Limit}
	if c.Subscription != "" {
		id, err := subscription.ParseID(c.Subscription)
		if err != nil {
			return fmt.Errorf("--subscription %q: %w", c.Subscription, err)
		}
		f.Subscription = id
	}
	pool, err := c.open("dead-letters", 2)
	if err != nil {
		return err
	}
	defer func() { _ = pool.Close() }()
	list, err := postgres.DeadLetters(ctx, pool, f)
	if err != nil {
		return fmt.Errorf("list dead letters: %w", err)
	}
	for _, d := range list {
		if err := printJSON(e, deadLine(d)); err != nil {
			return err
		}
	}
	return nil
}

// deadLine is a delivery as it is printed.
func deadLine(d postgres.Delivery) map[string]any {
	return map[string]any{
		"id": d.String(), "eventId": d.EventID, "eventType": d.EventType, "subscriptionId": d.Subscription, "status": d.Status,
		"run": d.Run, "attempts": d.Attempts, "lastStatus": d.LastStatus, "errorClass": d.ErrorClass, "lastError": d.LastError,
		"finishedAt": d.FinishedAt.UTC(),
	}
}

// printJSON prints a line of JSON, in which nothing can reach the terminal as
// a control sequence: encoding/json leaves DEL and the C1 controls as they are.
func printJSON(e *env, v any) error {
	line, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("print: %w", err)
	}
	var safe strings.Builder
	for _, r := range string(line) {
		if r >= 0x7f && r <= 0x9f {
			fmt.Fprintf(&safe, "\\u%04x", r)
		} else {
			safe.WriteRune(r)
		}
	}
	if _, err := fmt.Fprintln(e.out, safe.String()); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}

type showDeadCmd struct {
	databaseFlags
	ID string `arg:"" help:"Id of the delivery." placeholder:"dlv_..."`
}

func (c *showDeadCmd) Run(ctx context.Context, e *env) error {
	id, err := postgres.ParseDeliveryID(c.ID)
	if err != nil {
		return fmt.Errorf("delivery %q: %w", c.ID, err)
	}
	pool, err := c.open("dead-letters", 2)
	if err != nil {
		return err
	}
	defer func() { _ = pool.Close() }()
	d, err := postgres.DeliveryByID(ctx, pool, events.DefaultAccount, id)
	if err != nil {
		return fmt.Errorf("read delivery: %w", err)
	}
	if err := printJSON(e, deadLine(d)); err != nil {
		return err
	}
	attempts, err := postgres.DeliveryAttempts(ctx, pool, id)
	if err != nil {
		return fmt.Errorf("read attempts: %w", err)
	}
	for _, a := range attempts {
		if err := printJSON(e, map[string]any{
			"run": a.Run, "number": a.Number, "cause": a.Cause, "startedAt": a.StartedAt.UTC(), "status": a.HTTPStatus,
			"outcome": a.ErrorClass, "error": a.Error, "requestHeaders": a.RequestHeaders, "responseHeaders": a.ResponseHeaders,
			"responseBody": string(a.ResponseBody),
		}); err != nil {
			return err
		}
	}
	record, err := postgres.RecordAt(ctx, pool, id.Position)
	if err != nil {
		return fmt.Errorf("read event: %w", err)
	}
	return printJSON(e, map[string]any{"requestBody": string(record.AppendBody(nil))})
}

type redriveDeadCmd struct {
	databaseFlags
	deadFlags
	Subscription string `help:"Redrive those of this subscription, all or by the other flags." placeholder:"sub_..."`
	ID           string `arg:"" optional:"" help:"Redrive this one delivery, however it ended." placeholder:"dlv_..."`
	Rate         int    `help:"How many are sent in a second at most; 0 is no limit." default:"0"`
	Wait         bool   `help:"Show the progress until everything is sent."`
}

func (c *redriveDeadCmd) Run(ctx context.Context, e *env) error {
	if (c.ID == "") == (c.Subscription == "") {
		return errors.New("give either the id of a delivery or --subscription")
	}
	if c.Rate < 0 {
		return errors.New("--rate must not be negative")
	}
	pool, err := c.open("dead-letters", 2)
	if err != nil {
		return err
	}
	defer func() { _ = pool.Close() }()
	var r postgres.Replay
	if c.ID != "" {
		id, err := postgres.ParseDeliveryID(c.ID)
		if err != nil {
			return fmt.Errorf("delivery %q: %w", c.ID, err)
		}
		r, err = postgres.RedriveDelivery(ctx, pool, events.DefaultAccount, id)
		if err != nil {
			return fmt.Errorf("redrive: %w", err)
		}
	} else {
		id, err := subscription.ParseID(c.Subscription)
		if err != nil {
			return fmt.Errorf("--subscription %q: %w", c.Subscription, err)
		}
		r, err = postgres.CreateReplay(ctx, pool, postgres.Selection{
			Account: events.DefaultAccount, Subscription: id, Cause: postgres.CauseRedrive, OnlyDead: true, Unfiltered: true,
			Dead: c.filter(), Rate: c.Rate,
		})
		if err != nil {
			return fmt.Errorf("redrive: %w", err)
		}
	}
	_, _ = fmt.Fprintf(e.out, "%s is running.\n", r.ID)
	if !c.Wait {
		return nil
	}
	return waitForReplay(ctx, e, pool, r)
}

type purgeDeadCmd struct {
	databaseFlags
	deadFlags
	Subscription string `help:"Whose dead deliveries are given up." required:"" placeholder:"sub_..."`
	Confirm      int64  `help:"How many there are; with another number nothing is done, and the number is said." default:"-1"`
}

func (c *purgeDeadCmd) Run(ctx context.Context, e *env) error {
	id, err := subscription.ParseID(c.Subscription)
	if err != nil {
		return fmt.Errorf("--subscription %q: %w", c.Subscription, err)
	}
	pool, err := c.open("dead-letters", 2)
	if err != nil {
		return err
	}
	defer func() { _ = pool.Close() }()
	n, err := postgres.PurgeDeadLetters(ctx, pool, events.DefaultAccount, id, c.filter(), c.Confirm)
	if errors.Is(err, postgres.ErrCount) {
		return fmt.Errorf("there are %d dead deliveries; nothing was done: confirm with --confirm=%d", n, n)
	}
	if err != nil {
		return fmt.Errorf("purge dead letters: %w", err)
	}
	_, _ = fmt.Fprintf(e.out, "%d dead deliveries are given up.\n", n)
	return nil
}
