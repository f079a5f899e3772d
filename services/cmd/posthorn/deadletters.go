package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"posthorn/services/internal/account"
	"posthorn/services/internal/ledger"
	"posthorn/services/internal/operate"
	"posthorn/services/internal/subscription"
)

type deadCmd struct {
	List    listDeadCmd    `cmd:"" help:"List dead letters as JSON lines, latest events first."`
	Show    showDeadCmd    `cmd:"" help:"Show a delivery with its attempts and the body of its request."`
	Redrive redriveDeadCmd `cmd:"" help:"Retry dead letters, and deliveries that are waiting for a retry, immediately."`
	Purge   purgeDeadCmd   `cmd:"" help:"Cancel dead letters, after confirming their number."`
}

// deadFlags select dead deliveries.
type deadFlags struct {
	ErrorClass string `help:"Only those whose last attempt failed with this class: status, timeout, connect, address, tls or protocol."`
	Status     int    `help:"Only those whose last attempt got this HTTP status."`
	Since      moment `help:"Only dead letters that died at or after this time, such as 2026-01-31T08:00:00Z."`
	Until      moment `help:"Only dead letters that died before this time."`
}

func (f deadFlags) filter() ledger.DeadFilter {
	return ledger.DeadFilter{ErrorClass: f.ErrorClass, LastStatus: f.Status, Since: f.Since.Time, Until: f.Until.Time}
}

type listDeadCmd struct {
	databaseFlags
	deadFlags
	Subscription string `help:"Only those of this subscription." placeholder:"sub_..."`
	Limit        int    `short:"n" help:"Maximum number to list." default:"100"`
}

func (c *listDeadCmd) Run(ctx context.Context, e *env) error {
	f := ledger.DeadLetterFilter{DeadFilter: c.filter()}
	if c.Subscription != "" {
		id, err := subscription.ParseID(c.Subscription)
		if err != nil {
			return fmt.Errorf("--subscription %q: %w", c.Subscription, err)
		}
		f.Subscription = id
	}
	operations, pool, err := c.operations("dead-letters")
	if err != nil {
		return err
	}
	defer func() { _ = pool.Close() }()
	const page = 500
	for left := c.Limit; left > 0; {
		f.Limit = min(left, page)
		part, err := operations.DeadLetters(ctx, e.by, f)
		if err != nil {
			return fmt.Errorf("list dead letters: %w", err)
		}
		for _, d := range part.Items {
			if err := printJSON(e, operate.ShowDelivery(d)); err != nil {
				return err
			}
			f.Before = &d.DeliveryID
		}
		if !part.More {
			return nil
		}
		left -= len(part.Items)
	}
	return nil
}

// printJSON prints a line of JSON without any control sequence that could reach
// the terminal: encoding/json does not escape DEL and the C1 controls.
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
	ID   string `arg:"" help:"Id of the delivery." placeholder:"dlv_..."`
	Curl bool   `help:"Print only a curl command that repeats the request."`
}

func (c *showDeadCmd) Run(ctx context.Context, e *env) error {
	id, err := ledger.ParseDeliveryID(c.ID)
	if err != nil {
		return fmt.Errorf("delivery %q: %w", c.ID, err)
	}
	operations, pool, err := c.operations("dead-letters")
	if err != nil {
		return err
	}
	defer func() { _ = pool.Close() }()
	d, err := operations.Delivery(ctx, e.by, id)
	if err != nil {
		return fmt.Errorf("read delivery: %w", err)
	}
	if d.Request == nil {
		return fmt.Errorf("delivery %s: its event is no longer in the log", id)
	}
	if c.Curl {
		_, err := fmt.Fprintln(e.out, d.Request.Curl)
		return err
	}
	if err := printJSON(e, d.Delivery); err != nil {
		return err
	}
	for _, a := range d.Attempts {
		if err := printJSON(e, a); err != nil {
			return err
		}
	}
	return printJSON(e, d.Request)
}

type redriveDeadCmd struct {
	databaseFlags
	deadFlags
	Subscription string   `help:"Redrive the dead letters and waiting retries of this subscription, all or filtered by the other flags. --since and --until exclude waiting retries." placeholder:"sub_..."`
	IDs          []string `arg:"" name:"id" optional:"" help:"Redrive these deliveries, whatever their status, except for pending ones." placeholder:"dlv_..."`
	Rate         int      `help:"Maximum number sent per second to each subscription; 0 means no limit." default:"0"`
	Wait         bool     `help:"Show the progress until everything is sent."`
}

func (c *redriveDeadCmd) Run(ctx context.Context, e *env) error {
	if (len(c.IDs) == 0) == (c.Subscription == "") {
		return errors.New("give either ids of deliveries or --subscription")
	}
	if c.Rate < 0 {
		return errors.New("--rate must not be negative")
	}
	if len(c.IDs) > 0 && c.deadFlags != (deadFlags{}) {
		return errors.New("--error-class, --status, --since and --until are for --subscription")
	}
	operations, pool, err := c.operations("dead-letters")
	if err != nil {
		return err
	}
	defer func() { _ = pool.Close() }()
	for _, text := range c.IDs { // check all of them before starting any
		if err := c.check(ctx, operations, e.by, text); err != nil {
			return err
		}
	}
	replays, err := operations.Redrive(ctx, e.by, operate.RedriveRequest{
		IDs: c.IDs, Subscription: c.Subscription, Dead: c.filter(), Finished: true, Rate: c.Rate,
	})
	for _, r := range replays {
		_, _ = fmt.Fprintf(e.out, "%s is running.\n", r.ID)
	}
	if err != nil {
		return fmt.Errorf("redrive: %w", err)
	}
	if !c.Wait {
		return nil
	}
	var failures []error
	for _, r := range replays {
		failures = append(failures, waitForReplay(ctx, e, operations, r))
	}
	return errors.Join(failures...)
}

// check reports why a given delivery cannot be redriven.
func (c *redriveDeadCmd) check(ctx context.Context, operations *operate.Operations, by account.Actor, text string) error {
	id, err := ledger.ParseDeliveryID(text)
	if err != nil {
		return fmt.Errorf("delivery %q: %w", text, err)
	}
	d, err := operations.Delivery(ctx, by, id)
	if err != nil {
		return fmt.Errorf("delivery %q: %w", text, err)
	}
	if d.Status == ledger.Pending {
		return fmt.Errorf("delivery %q is pending: its first attempt has not been made yet", text)
	}
	return nil
}

type purgeDeadCmd struct {
	databaseFlags
	deadFlags
	Subscription string `help:"Subscription whose dead letters are cancelled." required:"" placeholder:"sub_..."`
	Confirm      int64  `help:"The number of dead letters; with any other number nothing is changed and the right one is printed." default:"-1"`
}

func (c *purgeDeadCmd) Run(ctx context.Context, e *env) error {
	id, err := subscription.ParseID(c.Subscription)
	if err != nil {
		return fmt.Errorf("--subscription %q: %w", c.Subscription, err)
	}
	operations, pool, err := c.operations("dead-letters")
	if err != nil {
		return err
	}
	defer func() { _ = pool.Close() }()
	n, err := operations.PurgeDeadLetters(ctx, e.by, id, c.filter(), c.Confirm)
	if errors.Is(err, ledger.ErrCount) {
		return fmt.Errorf("there are %d dead deliveries; nothing was done: confirm with --confirm=%d", n, n)
	}
	if err != nil {
		return fmt.Errorf("purge dead letters: %w", err)
	}
	_, _ = fmt.Fprintf(e.out, "%d dead deliveries were cancelled.\n", n)
	return nil
}
