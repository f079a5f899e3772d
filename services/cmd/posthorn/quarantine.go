package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"posthorn/services/internal/eventlog"
)

type quarantineCmd struct {
	List  quarantineListCmd  `cmd:"" help:"List the records that the relay could not forward."`
	Retry quarantineRetryCmd `cmd:"" help:"Retry records: held ones are sent if they can be forwarded now."`
	Drop  quarantineDropCmd  `cmd:"" help:"Drop held records. They are delivered to no one."`
}

type quarantineListCmd struct {
	databaseFlags
	All  bool `help:"Include released and dropped records."`
	JSON bool `name:"json" help:"Print a JSON object per line."`
}

// quarantined is a record in quarantine, in JSON.
type quarantined struct {
	Position   int64                     `json:"position"`
	Kind       eventlog.Kind             `json:"kind"`
	Account    string                    `json:"account"`
	Event      string                    `json:"event"`
	Status     eventlog.QuarantineStatus `json:"status"`
	Reason     string                    `json:"reason"`
	SetAsideAt time.Time                 `json:"setAsideAt"`
	UpdatedAt  time.Time                 `json:"updatedAt"`
}

func (c *quarantineListCmd) Run(ctx context.Context, e *env) error {
	operations, pool, err := c.operations("quarantine")
	if err != nil {
		return err
	}
	defer func() { _ = pool.Close() }()
	p := printer{w: e.out}
	const page = 500
	shown := 0
	for after := int64(0); ; {
		list, err := operations.Quarantine(ctx, after, c.All, page)
		if err != nil {
			return err
		}
		for _, r := range list {
			after = r.Position
			if !c.JSON {
				p.printf("position %d, %s %+q of account %+q, %s since %s: %+q\n", r.Position, r.Kind, r.EventID, r.Account,
					r.Status, r.SetAsideAt.UTC().Format(time.RFC3339), r.Reason)
				continue
			}
			line, err := json.Marshal(quarantined{
				r.Position, r.Kind, r.Account, r.EventID, r.Status, r.Reason, r.SetAsideAt.UTC(), r.UpdatedAt.UTC(),
			})
			if err != nil {
				return fmt.Errorf("print quarantine: %w", err)
			}
			line, _ = printableJSON(line)
			p.printf("%s\n", line)
		}
		if shown += len(list); len(list) < page || p.err != nil {
			break
		}
	}
	if shown == 0 && !c.JSON {
		p.printf("no records are in quarantine\n")
	}
	return p.err
}

// positionArgs name records.
type positionArgs struct {
	Position []int64 `arg:"" help:"Positions of the records."`
}

// each applies f to every given record and prints the result.
func (a positionArgs) each(e *env, f func(position int64) (eventlog.Quarantined, error)) error {
	p := printer{w: e.out}
	var failed error
	for _, position := range a.Position {
		r, err := f(position)
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("position %d: %w", position, err))
			continue
		}
		p.printf("position %d: %s\n", r.Position, r.Status)
	}
	return errors.Join(failed, p.err)
}

type quarantineRetryCmd struct {
	databaseFlags
	positionArgs
}

func (c *quarantineRetryCmd) Run(ctx context.Context, e *env) error {
	operations, pool, err := c.operations("quarantine")
	if err != nil {
		return err
	}
	defer func() { _ = pool.Close() }()
	return c.each(e, func(position int64) (eventlog.Quarantined, error) {
		return operations.ReleaseQuarantined(ctx, position)
	})
}

type quarantineDropCmd struct {
	databaseFlags
	positionArgs
}

func (c *quarantineDropCmd) Run(ctx context.Context, e *env) error {
	operations, pool, err := c.operations("quarantine")
	if err != nil {
		return err
	}
	defer func() { _ = pool.Close() }()
	return c.each(e, func(position int64) (eventlog.Quarantined, error) { return operations.DropQuarantined(ctx, position) })
}
