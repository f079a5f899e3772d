package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"posthorn/services/internal/account"
	"posthorn/services/internal/eventlog"
	"posthorn/services/internal/operate"
	"posthorn/services/internal/replay"
	"posthorn/services/internal/subscription"
)

type replayCmd struct {
	Start  startReplayCmd  `cmd:"" default:"withargs" help:"Deliver past events again. The word start is optional: posthorn replay --subscription sub_..."`
	List   listReplaysCmd  `cmd:"" help:"List replays as JSON lines, latest first."`
	Show   showReplayCmd   `cmd:"" help:"Show a replay and its progress."`
	Pause  pauseReplayCmd  `cmd:"" help:"Pause a replay."`
	Resume resumeReplayCmd `cmd:"" help:"Resume a replay that is paused or has failed."`
	Cancel cancelReplayCmd `cmd:"" help:"Cancel a replay. Events already sent are still delivered."`
}

type startReplayCmd struct {
	databaseFlags
	toURLFlags
	Subscription string         `help:"Subscription to deliver the events to." placeholder:"sub_..."`
	From         eventlog.Place `help:"First event: a position, a time such as 2026-01-31T08:00:00Z, or beginning." default:"beginning"`
	To           eventlog.Place `help:"Last event: a position, a time before which it was recorded, or now." default:"now"`
	Type         []string       `help:"Only events of these types; patterns as in a subscription." placeholder:"photo.#"`
	Subject      []string       `help:"Only events about these subjects." sep:"none"`
	Event        []string       `help:"Only the events with these ids." placeholder:"evt_..."`
	OnlyDead     bool           `help:"Only events whose delivery is dead."`
	NoFilter     bool           `help:"Include events that the subscription's current event types do not match."`
	Rate         int            `help:"Maximum number sent per second; 0 means no limit." default:"0"`
	DryRun       bool           `help:"Count the events and print the first 20, without delivering anything."`
	Wait         bool           `help:"Show the progress until everything is sent."`
}

func (c *startReplayCmd) request(by account.Actor) (operate.ReplayRequest, error) {
	if c.Subscription == "" {
		return operate.ReplayRequest{}, errors.New("give --subscription, or --to-url")
	}
	r := operate.ReplayRequest{
		Subscription: c.Subscription, From: c.From, To: c.To, EventTypes: c.Type, Subjects: c.Subject, EventIDs: c.Event,
		OnlyDead: c.OnlyDead, IgnoreEventTypes: c.NoFilter, Rate: c.Rate,
	}
	_, err := r.Selection(by)
	return r, fieldErrors(err)
}

// fieldErrors reports the invalid fields of a request.
func fieldErrors(err error) error {
	wrong, ok := errors.AsType[subscription.InvalidError](err)
	if !ok {
		return err
	}
	all := make([]error, len(wrong))
	for i, f := range wrong {
		all[i] = fmt.Errorf("%s: %s", f.Field, f.Message)
	}
	return errors.Join(all...)
}

func (c *startReplayCmd) Run(ctx context.Context, e *env) error {
	if c.Rate < 0 || c.Timeout <= 0 {
		return errors.New("--rate must not be negative, and --timeout must be more than 0")
	}
	if c.ToURL != "" {
		return c.runToURL(ctx, e)
	}
	if c.KeepGoing {
		return errors.New("--keep-going is for --to-url")
	}
	request, err := c.request(e.by)
	if err != nil {
		return err
	}
	operations, pool, err := c.operations("replay")
	if err != nil {
		return err
	}
	defer func() { _ = pool.Close() }()
	if c.DryRun {
		preview, err := operations.PreviewReplay(ctx, e.by, request, 20)
		if err != nil {
			return fmt.Errorf("count events to replay: %w", err)
		}
		_, _ = fmt.Fprintf(e.out, "%d events, of which %d are already being delivered. Nothing was changed.\n", preview.Matched, preview.Skipped)
		for _, event := range preview.First {
			_, _ = fmt.Fprintf(e.out, "%d\t%s\t%s\t%q\n", event.Position, event.ID, event.Type, event.Subject)
		}
		return nil
	}
	r, err := operations.StartReplay(ctx, e.by, request)
	if err != nil {
		return fmt.Errorf("create replay: %w", err)
	}
	_, _ = fmt.Fprintf(e.out, "%s of positions %d to %d is running.\n", r.ID, r.After+1, r.Through)
	if !c.Wait {
		return nil
	}
	return waitForReplay(ctx, e, operations, r)
}

// waitForReplay shows a replay's progress until it ends.
func waitForReplay(ctx context.Context, e *env, operations *operate.Operations, r replay.Replay) error {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for r.Status == replay.Running || r.Status == replay.Paused {
		select {
		case <-ctx.Done():
			_, _ = fmt.Fprintf(e.out, "%s continues in the background.\n", r.ID)
			return nil
		case <-ticker.C:
		}
		var err error
		if r, err = operations.Replay(ctx, e.by, r.ID); err != nil {
			return fmt.Errorf("read replay: %w", err)
		}
		_, _ = fmt.Fprintf(e.out, "%s: %d sent, %d skipped, at position %d of %d\n", r.Status, r.Sent, r.Skipped, r.Position, r.Through)
	}
	if r.Status != replay.Done {
		return fmt.Errorf("the replay is %s: %s", r.Status, r.Error)
	}
	return nil
}
