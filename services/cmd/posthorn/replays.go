package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"posthorn/events"
	"posthorn/services/internal/postgres"
	"posthorn/services/internal/replay"
	"posthorn/services/internal/subscription"
)

// replayLine is a replay as it is printed; the names are the API's.
type replayLine struct {
	ID           string           `json:"id"`
	Subscription string           `json:"subscription"`
	Cause        string           `json:"cause"`
	From         int64            `json:"from"`
	To           int64            `json:"to"`
	EventTypes   []events.Pattern `json:"eventTypes,omitempty"`
	Subjects     []string         `json:"subjects,omitempty"`
	EventIDs     []string         `json:"eventIds,omitempty"`
	OnlyDead     bool             `json:"onlyDead"`
	Filter       string           `json:"filter"`
	Rate         int              `json:"rate,omitempty"`
	Status       replay.Status    `json:"status"`
	Position     int64            `json:"position"`
	Matched      int64            `json:"matched"`
	Sent         int64            `json:"sent"`
	Skipped      int64            `json:"skipped"`
	Error        string           `json:"error,omitempty"`
	CreatedAt    time.Time        `json:"createdAt"`
	UpdatedAt    time.Time        `json:"updatedAt"`
	FinishedAt   time.Time        `json:"finishedAt,omitzero"`
}

func printReplay(e *env, r replay.Replay) error {
	line := replayLine{
		ID: string(r.ID), Subscription: string(r.Subscription), Cause: r.Cause, From: r.After + 1, To: r.Through, EventTypes: r.EventTypes,
		Subjects: r.Subjects, EventIDs: r.EventIDs, OnlyDead: r.OnlyDead, Filter: "subscription", Rate: r.Rate, Status: r.Status,
		Position: r.Position, Matched: r.Matched, Sent: r.Sent, Skipped: r.Skipped, Error: r.Error,
		CreatedAt: r.CreatedAt.UTC(), UpdatedAt: r.UpdatedAt.UTC(), FinishedAt: r.FinishedAt.UTC(),
	}
	if r.Unfiltered {
		line.Filter = "none"
	}
	return printJSON(e, line)
}

type listReplaysCmd struct {
	databaseFlags
	Subscription string `help:"Only those to this subscription." placeholder:"sub_..."`
	Status       string `help:"Only those with this status: running, paused, cancelled, done or failed."`
	Limit        int    `short:"n" help:"How many at most." default:"100"`
}

func (c *listReplaysCmd) Run(ctx context.Context, e *env) error {
	f := replay.Filter{Account: events.DefaultAccount, Status: replay.Status(c.Status)}
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
	pool, err := c.open("replay", 2)
	if err != nil {
		return err
	}
	defer func() { _ = pool.Close() }()
	const page = 500
	for left := c.Limit; left > 0; {
		f.Limit = min(left, page)
		part, err := replay.List(ctx, pool, f)
		if err != nil {
			return err
		}
		for _, r := range part.Items {
			if err := printReplay(e, r); err != nil {
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

// oneReplay is a command on a replay that exists.
type oneReplay struct {
	databaseFlags
	ID string `arg:"" help:"Id of the replay." placeholder:"rpl_..."`
}

// set brings the replay into a state, or none where it is empty, and prints it.
func (c *oneReplay) set(ctx context.Context, e *env, status replay.Status) error {
	id, err := replay.ParseID(strings.TrimSpace(c.ID))
	if err != nil {
		return fmt.Errorf("replay %q: %w", c.ID, err)
	}
	pool, err := c.open("replay", 2)
	if err != nil {
		return err
	}
	defer func() { _ = pool.Close() }()
	var r replay.Replay
	if status == "" {
		r, err = replay.ByID(ctx, pool, events.DefaultAccount, id)
	} else {
		r, err = replay.SetStatus(ctx, pool, events.DefaultAccount, id, status)
	}
	if errors.Is(err, postgres.ErrState) {
		return fmt.Errorf("replay %s is %s: it cannot be made %s", id, r.Status, status)
	}
	if err != nil {
		return fmt.Errorf("replay %s: %w", id, err)
	}
	return printReplay(e, r)
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
