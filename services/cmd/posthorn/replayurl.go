package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"time"

	"posthorn/events/webhook"
	"posthorn/services/internal/eventlog"
	"posthorn/services/internal/payload"
	"posthorn/services/internal/sender"
	"posthorn/services/internal/target"
)

// toURLFlags are for a replay to a URL without a subscription.
type toURLFlags struct {
	ToURL     string        `name:"to-url" help:"Send the events to this URL, signed, one at a time, without changing anything; to debug a receiver, for example." placeholder:"http://localhost:9000/hook"`
	Secret    string        `help:"Secret to sign with; with --to-url. Default: a new one, which is printed." placeholder:"whsec_..." env:"POSTHORN_REPLAY_SECRET"`
	Timeout   time.Duration `help:"Timeout of each request; with --to-url." default:"15s"`
	KeepGoing bool          `help:"Continue after a request that is not answered with 2xx; with --to-url."`
}

// toURL is the state of a replay to a URL.
type toURL struct {
	toURLFlags
	env    *env
	pool   *sql.DB
	sender *sender.Sender
	secret webhook.Secret
	every  time.Duration

	last         time.Time // when the last request began
	sent, failed int
	next         int64 // position to continue from
}

// everywhere are the networks that a replay to a URL may reach: all. The guard
// protects the delivering machine from subscribers; here the operator names the
// URL, on a machine and with privileges of their own, and nearly always means
// localhost.
func everywhere() []netip.Prefix {
	return []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}
}

// runToURL sends the selected events.
func (c *startReplayCmd) runToURL(ctx context.Context, e *env) error {
	if c.Subscription != "" || c.OnlyDead || c.NoFilter || c.Wait {
		return errors.New("--to-url does not go with --subscription, --only-dead, --no-filter or --wait: it uses no subscription")
	}
	if err := target.ValidateURL(c.ToURL); err != nil {
		return fmt.Errorf("--to-url: %w", err)
	}
	secret := webhook.NewSecret()
	if c.Secret != "" {
		var err error
		if secret, err = webhook.ParseSecret(c.Secret); err != nil {
			return fmt.Errorf("--secret: %w", err)
		}
	}
	types, err := patterns(c.Type)
	if err != nil {
		return err
	}
	pool, err := c.open("replay", 2)
	if err != nil {
		return err
	}
	defer func() { _ = pool.Close() }()
	slice := eventlog.Slice{
		Since: c.From.Time, Until: c.To.Time, Account: e.by.Account, Kinds: []eventlog.Kind{eventlog.KindEvent},
		Types: types, Subjects: c.Subject, IDs: c.Event,
	}
	if slice.After, slice.Through, err = eventlog.Bounds(ctx, pool, c.From, c.To); err != nil {
		return err
	}
	if c.DryRun {
		return previewSlice(ctx, e, pool, slice)
	}
	if c.Secret == "" {
		_, _ = fmt.Fprintf(e.errOut, "signed with %s\n", secret.Reveal())
	}
	u := &toURL{
		toURLFlags: c.toURLFlags, env: e, pool: pool, secret: secret, next: slice.After + 1,
		sender: sender.New(sender.Config{
			AllowNetworks: everywhere(), MaxTimeout: c.Timeout, UserAgent: "Posthorn/" + versionText(),
		}),
	}
	defer u.sender.Close()
	if c.Rate > 0 {
		u.every = time.Second / time.Duration(c.Rate)
	}
	return u.run(ctx, slice)
}

// previewSlice counts the events and shows the first 20.
func previewSlice(ctx context.Context, e *env, pool *sql.DB, slice eventlog.Slice) error {
	n, err := eventlog.CountSlice(ctx, pool, slice)
	if err != nil {
		return err
	}
	_, _ = fmt.Fprintf(e.out, "%d events. Nothing was sent.\n", n)
	for left := 20; slice.After < slice.Through && left > 0; {
		records, reached, err := eventlog.ReadSlice(ctx, pool, slice, left)
		if err != nil {
			return err
		}
		for _, r := range records {
			_, _ = fmt.Fprintf(e.out, "%d\t%s\t%s\t%q\n", r.Position, r.ID, r.Type, r.Subject)
		}
		left, slice.After = left-len(records), reached
	}
	return nil
}

// run sends the slice in the order of the log and prints the results. It reads
// each page completely before sending, so that no query stays open meanwhile.
func (u *toURL) run(ctx context.Context, slice eventlog.Slice) error {
	for slice.After < slice.Through {
		records, reached, err := eventlog.ReadSlice(ctx, u.pool, slice, math.MaxInt)
		if err != nil {
			return u.stopped(ctx, err)
		}
		for _, r := range records {
			if err := u.pace(ctx); err != nil {
				return u.stopped(ctx, err)
			}
			result := u.send(ctx, r)
			if result.Class == sender.ClassCancelled {
				return u.stopped(ctx, ctx.Err())
			}
			u.next = r.Position + 1
			if !result.OK() && !u.KeepGoing {
				u.next = r.Position
				_, _ = fmt.Fprintf(u.env.errOut, "%s; continue with --from %d, or give --keep-going\n", u.counts(), u.next)
				return errFindings
			}
		}
		slice.After, u.next = reached, reached+1
	}
	_, _ = fmt.Fprintln(u.env.errOut, u.counts())
	if u.failed > 0 {
		return errFindings
	}
	return nil
}

func (u *toURL) stopped(ctx context.Context, err error) error {
	next := fmt.Sprintf("continue with --from %d", u.next)
	return notDone(ctx, fmt.Errorf("%w; %s; %s", err, u.counts(), next), u.counts(), next)
}

func (u *toURL) counts() string {
	return fmt.Sprintf("%d events sent, %d of them without a 2xx response", u.sent, u.failed)
}

// pace waits until the next request may begin.
func (u *toURL) pace(ctx context.Context) error {
	if wait := u.every - time.Since(u.last); wait > 0 {
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
	}
	u.last = time.Now()
	return ctx.Err()
}

// send makes the request that a delivery of the event would make, and prints a
// line about it.
func (u *toURL) send(ctx context.Context, r eventlog.Record) sender.Result {
	p := payload.Render(&r)
	result := u.sender.Send(ctx, sender.Request{
		URL: u.ToURL, Body: p.Body, ID: p.ID, Secrets: []webhook.Secret{u.secret}, Timeout: u.Timeout, Headers: p.Trace.Headers(),
	})
	if result.Class == sender.ClassCancelled {
		return result
	}
	u.sent++
	answer := fmt.Sprint(result.Status)
	if !result.OK() {
		u.failed++
		answer = fmt.Sprintf("%s: %s", result.Class, result.Error)
	}
	_, _ = fmt.Fprintf(u.env.out, "%d\t%s\t%s\t%s\t%d ms\n", r.Position, r.ID, r.Type, answer, result.Duration.Milliseconds())
	return result
}
