package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"posthorn/services/internal/operate"
	"posthorn/services/internal/postgres"
	"posthorn/services/internal/replay"
	"posthorn/services/internal/subscription"
)

type listReplaysCmd struct {
	databaseFlags
	Subscription string `help:"Only those of this subscription." placeholder:"sub_..."`
	Status       string `help:"Only those with this status: running, paused, cancelled, done or failed."`
	Limit        int    `short:"n" help:"Maximum number to list." default:"100"`
}

func (c *listReplaysCmd) Run(ctx context.Context, e *env) error {
	f := replay.Filter{Status: replay.Status(c.Status)}
	switch f.Status {
	case "", replay.Running, replay.Paused, replay.Cancelled, replay.Done, replay.Failed:
	default:
		return fmt.Errorf("--status %q: want running, paused, cancelled, done or failed", c.Status)
	}
	if c.Subscription != "" {
		var err error
		if f.Subscription, err = subscription.ParseID(c.Subscription); err != nil {
			return fmt.Errorf("--subscription %q: %w", c.Subscription, err)
		}
	}
	operations, pool, err := c.operations("replay")
	if err != nil {
		return err
	}
	defer func() { _ = pool.Close() }()
	const page = 500
	for left := c.Limit; left > 0; {
		f.Limit = min(left, page)
		part, err := operations.Replays(ctx, e.by, f)
		if err != nil {
			return err
		}
		for _, r := range part.Items {
			if err := printJSON(e, operate.ShowReplay(r)); err != nil {
				return err
			}
			f.Before = r.ID
		}
		if !part.More {
			return nil
		}
		left -= len(part.Items)
	}
	return nil
}

// oneReplay is a command on an existing replay.
type oneReplay struct {
	databaseFlags
	ID string `arg:"" help:"Id of the replay." placeholder:"rpl_..."`
}

// set changes the replay's status, unless status is empty, and prints it.
func (c *oneReplay) set(ctx context.Context, e *env, status replay.Status) error {
	id, err := replay.ParseID(strings.TrimSpace(c.ID))
	if err != nil {
		return fmt.Errorf("replay %q: %w", c.ID, err)
	}
	operations, pool, err := c.operations("replay")
	if err != nil {
		return err
	}
	defer func() { _ = pool.Close() }()
	var r replay.Replay
	if status == "" {
		r, err = operations.Replay(ctx, e.by, id)
	} else {
		r, err = operations.SetReplayStatus(ctx, e.by, id, status)
	}
	if errors.Is(err, postgres.ErrState) {
		return fmt.Errorf("replay %s is %s and cannot become %s", id, r.Status, status)
	}
	if err != nil {
		return fmt.Errorf("replay %s: %w", id, err)
	}
	return printJSON(e, operate.ShowReplay(r))
}

type showReplayCmd struct{ oneReplay }

func (c *showReplayCmd) Run(ctx context.Context, e *env) error { return c.set(ctx, e, "") }

type pauseReplayCmd struct{ oneReplay }

func (c *pauseReplayCmd) Run(ctx context.Context, e *env) error {
	return c.set(ctx, e, replay.Paused)
}

type resumeReplayCmd struct{ oneReplay }

func (c *resumeReplayCmd) Run(ctx context.Context, e *env) error {
	return c.set(ctx, e, replay.Running)
}

type cancelReplayCmd struct{ oneReplay }

func (c *cancelReplayCmd) Run(ctx context.Context, e *env) error {
	return c.set(ctx, e, replay.Cancelled)
}
