package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"time"

	"posthorn/events"
	"posthorn/services/internal/eventlog"
	"posthorn/services/internal/postgres"
)

type outboxCmd struct {
	Tail   tailCmd   `cmd:"" help:"Print the log as JSON lines: its end, a range, or new records (-f)."`
	Show   showCmd   `cmd:"" help:"Print one record of the log."`
	Export exportCmd `cmd:"" help:"Export a range of the log as JSON lines, for import."`
	Import importCmd `cmd:"" help:"Append the events of an exported file to the log."`

	Quarantine quarantineCmd `cmd:"" help:"Inspect, retry or drop records that could not be forwarded."`
}

// sliceFlags select a part of the log.
type sliceFlags struct {
	From    eventlog.Place `help:"First record: a position, a start time such as 2026-01-31T08:00:00Z, beginning or now." placeholder:"PLACE"`
	To      eventlog.Place `help:"Last record: a position, an end time (exclusive), or now." placeholder:"PLACE"`
	Type    []string       `help:"Event types, or patterns such as order.* and #." placeholder:"PATTERN"`
	Subject []string       `help:"Subjects." sep:"none" placeholder:"SUBJECT"`
	Account string         `help:"Only this account." placeholder:"NAME"`
	Kind    []string       `help:"Kinds of records: event, test or subscription." placeholder:"KIND"`
}

// slice is the selected part up to the horizon, or to --to if that is lower.
func (f sliceFlags) slice(ctx context.Context, q postgres.Queryer) (s eventlog.Slice, err error) {
	s = eventlog.Slice{Account: f.Account, Subjects: f.Subject, Since: f.From.Time, Until: f.To.Time}
	if s.Types, err = patterns(f.Type); err != nil {
		return s, err
	}
	for _, text := range f.Kind {
		switch kind := eventlog.Kind(text); kind {
		case eventlog.KindEvent, eventlog.KindTest, eventlog.KindSubscription:
			s.Kinds = append(s.Kinds, kind)
		default:
			return s, fmt.Errorf("--kind %q: want event, test or subscription", text)
		}
	}
	s.After, s.Through, err = eventlog.Bounds(ctx, q, f.From, f.To)
	return s, err
}

// patterns reads the values of --type.
func patterns(texts []string) (list []events.Pattern, err error) {
	for _, text := range texts {
		p, err := events.ParsePattern(text)
		if err != nil {
			return nil, fmt.Errorf("--type %q: %w", text, err)
		}
		list = append(list, p)
	}
	return list, nil
}

type tailCmd struct {
	databaseFlags
	sliceFlags
	Number int  `short:"n" help:"Maximum number of records: the last ones or, with --from, the first ones. Default: 10, or all with --from." placeholder:"N"`
	Follow bool `short:"f" help:"Follow the log, in order and without gaps, until --to or Ctrl-C. It survives a restart of the database."`
}

func (c *tailCmd) Run(ctx context.Context, e *env) error {
	if c.Number < 0 {
		return errors.New("-n must not be negative")
	}
	pool, err := c.open("outbox", 2)
	if err != nil {
		return err
	}
	defer func() { _ = pool.Close() }()
	slice, err := c.slice(ctx, pool)
	if err != nil {
		return err
	}
	left := c.Number
	if c.From.IsZero() {
		if left == 0 {
			left = 10
		}
		err := eventlog.EndOfSlice(ctx, pool, slice, left, func(records []eventlog.Record) error { return printRecords(e.out, records) })
		if err != nil {
			return err
		}
		slice.After, left = slice.Through, 0
	}
	if c.Follow {
		return c.follow(ctx, e, pool, slice, left)
	}
	_, err = c.forward(ctx, pool, e.out, slice, left)
	return err
}

// forward prints the slice from its beginning, at most left records, or all of
// them if left is 0. It returns the rest.
func (c *tailCmd) forward(ctx context.Context, pool *sql.DB, w io.Writer, slice eventlog.Slice, left int) (rest tailRest, err error) {
	rest = tailRest{after: slice.After, left: left}
	for rest.after < slice.Through {
		limit := math.MaxInt
		if rest.left > 0 {
			limit = rest.left
		}
		slice.After = rest.after
		records, reached, err := eventlog.ReadSlice(ctx, pool, slice, limit)
		if err != nil {
			return rest, err
		}
		if err := printRecords(w, records); err != nil {
			return rest, err
		}
		rest.after = reached
		if rest.left > 0 {
			if rest.left -= len(records); rest.left == 0 {
				rest.full = true
				return rest, nil
			}
		}
	}
	return rest, nil
}

// tailRest is the part that a tail has yet to print.
type tailRest struct {
	after int64
	left  int  // records to print, or 0 for no limit
	full  bool // the requested number is printed
}

// How often following polls for new records, and for an unreachable database.
const (
	followEvery = 100 * time.Millisecond
	followAgain = time.Second
)

// follow prints the slice and the records appended to it. A record appears once
// all below it are settled, so each appears once and in the order of the log,
// as for the relay: it reads the horizon first, then the records up to it.
func (c *tailCmd) follow(ctx context.Context, e *env, pool *sql.DB, slice eventlog.Slice, left int) error {
	end := int64(math.MaxInt64)
	if c.To.Position > 0 {
		end = c.To.Position
	} else if c.To.Now || c.To.Beginning {
		end = slice.Through
	}
	rest := tailRest{after: slice.After, left: left}
	away := false
	for rest.after < end && !rest.full {
		// Records from before that time have a position by then, and the
		// horizon, which is read afterwards, covers them.
		past := !c.To.Time.IsZero() && time.Since(c.To.Time) > followSkew
		horizon, err := eventlog.Horizon(ctx, pool)
		if err == nil {
			slice.After, slice.Through = rest.after, min(horizon, end)
			rest, err = c.forward(ctx, pool, e.out, slice, rest.left)
		}
		wait := followEvery
		switch {
		case ctx.Err() != nil:
			return nil //nolint:nilerr // stopping is its normal end
		case errors.Is(err, postgres.ErrUnavailable):
			if !away {
				e.logger.Warn("database is unavailable, waiting for it", "error", err)
			}
			away, wait = true, followAgain
		case err != nil:
			return err
		case past:
			return nil
		default:
			if away {
				e.logger.Info("database is available again")
			}
			away = false
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
	}
	return nil
}

// followSkew bounds the difference between the clocks of this machine and of
// the database, and between the order and the times of records.
const followSkew = 10 * time.Second

type showCmd struct {
	databaseFlags
	Event   string `arg:"" help:"Id or position of the record."`
	Account string `help:"The account that the id belongs to." default:"default"`
}

func (c *showCmd) Run(ctx context.Context, e *env) error {
	pool, err := c.open("outbox", 1)
	if err != nil {
		return err
	}
	defer func() { _ = pool.Close() }()
	record, err := findRecord(ctx, pool, c.Account, c.Event)
	if err != nil {
		return err
	}
	return printRecords(e.out, []eventlog.Record{record})
}

// findRecord finds a record by its position, or an event by its id.
func findRecord(ctx context.Context, q postgres.Queryer, account, name string) (eventlog.Record, error) {
	record, err := eventlog.ByID(ctx, q, account, name)
	if position, bad := strconv.ParseInt(name, 10, 64); errors.Is(err, postgres.ErrNotFound) && bad == nil && position > 0 {
		record, err = eventlog.At(ctx, q, position)
	}
	if err != nil {
		return record, fmt.Errorf("record %q: %w", name, err)
	}
	return record, nil
}
