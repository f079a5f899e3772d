package main

import (
	"context"
	"database/sql"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"time"
	"unicode/utf8"

	"posthorn/events"
	"posthorn/services/internal/postgres"
)

type outboxCmd struct {
	Tail tailCmd `cmd:"" help:"Print the log as JSON lines: its end, a part of it, or what comes (-f)."`
	Show showCmd `cmd:"" help:"Print one record of the log."`
}

// sliceFlags select a part of the log.
type sliceFlags struct {
	From    logPlace `help:"First position, or a time (RFC 3339) from which on." placeholder:"PLACE"`
	To      logPlace `help:"Last position, or a time before which." placeholder:"PLACE"`
	Type    []string `help:"Event types, or patterns such as order.* and #." placeholder:"PATTERN"`
	Subject []string `help:"Subjects." sep:"none" placeholder:"SUBJECT"`
	Account string   `help:"One account only." placeholder:"NAME"`
	Kind    []string `help:"Kinds of records: event, test or subscription." placeholder:"KIND"`
}

// slice is the part up to the horizon, or to --to where that is lower.
func (f sliceFlags) slice(ctx context.Context, q postgres.Queryer) (postgres.Slice, error) {
	s := postgres.Slice{Account: f.Account, Subjects: f.Subject}
	for _, text := range f.Type {
		p, err := events.ParsePattern(text)
		if err != nil {
			return s, fmt.Errorf("--type %q: %w", text, err)
		}
		s.Types = append(s.Types, p)
	}
	for _, text := range f.Kind {
		switch kind := postgres.Kind(text); kind {
		case postgres.KindEvent, postgres.KindTest, postgres.KindSubscription:
			s.Kinds = append(s.Kinds, kind)
		default:
			return s, fmt.Errorf("--kind %q: want event, test or subscription", text)
		}
	}
	after, through, err := positions(ctx, q, f.From, f.To)
	if err != nil {
		return s, err
	}
	if through == 0 {
		through = math.MaxInt64
	}
	s.After, s.Through = after, through
	return s, nil
}

type tailCmd struct {
	databaseFlags
	sliceFlags
	Number int  `short:"n" help:"At most so many records: the last ones or, with --from, the first ones. 10, or with --from all." placeholder:"N"`
	Follow bool `short:"f" help:"Go on with what is appended, in order and without a gap."`
}

// tailPage is how many records are read at a time.
const tailPage = 500

func (c *tailCmd) Run(ctx context.Context, e *env) error {
	pool, err := c.open("outbox", 2)
	if err != nil {
		return err
	}
	defer func() { _ = pool.Close() }()
	slice, err := c.slice(ctx, pool)
	if err != nil {
		return err
	}
	return c.print(ctx, pool, e.out, slice)
}

func (c *tailCmd) print(ctx context.Context, pool *sql.DB, w io.Writer, slice postgres.Slice) error {
	left := c.Number
	if c.From == (logPlace{}) {
		if left == 0 {
			left = 10
		}
		horizon, err := postgres.Horizon(ctx, pool)
		if err != nil {
			return err
		}
		part := slice
		part.Through = min(slice.Through, horizon)
		records, err := postgres.ReadSlice(ctx, pool, part, true, left)
		if err != nil {
			return err
		}
		if err := printRecords(w, records); err != nil {
			return err
		}
		slice.After, left = part.Through, 0
		if !c.Follow {
			return nil
		}
	}
	ticker := time.NewTicker(200 * time.Millisecond)
	defer ticker.Stop()
	for slice.After < slice.Through {
		// The horizon is read before the records: what commits late below it
		// does not exist.
		horizon, err := postgres.Horizon(ctx, pool)
		if err != nil {
			return err
		}
		part := slice
		part.Through = min(slice.Through, horizon)
		limit := tailPage
		if left > 0 {
			limit = min(left, tailPage)
		}
		records, err := postgres.ReadSlice(ctx, pool, part, false, limit)
		if err != nil {
			return err
		}
		if err := printRecords(w, records); err != nil {
			return err
		}
		if left > 0 {
			if left -= len(records); left == 0 {
				return nil
			}
		}
		if len(records) == limit {
			slice.After = records[limit-1].Position
			continue
		}
		slice.After = max(slice.After, part.Through)
		if !c.Follow {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
	return nil
}

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
	return printRecords(e.out, []postgres.Record{record})
}

// findRecord finds a record by its position, or an event by its id.
func findRecord(ctx context.Context, q postgres.Queryer, account, name string) (postgres.Record, error) {
	record, err := postgres.EventByID(ctx, q, account, name)
	if position, bad := strconv.ParseInt(name, 10, 64); errors.Is(err, postgres.ErrNotFound) && bad == nil && position > 0 {
		var at []postgres.Record
		at, err = postgres.ReadSlice(ctx, q, postgres.Slice{After: position - 1, Through: position}, false, 1)
		if err == nil && len(at) == 0 {
			err = postgres.ErrNotFound
		}
		if err == nil {
			record = at[0]
		}
	}
	if err != nil {
		return record, fmt.Errorf("record %q: %w", name, err)
	}
	return record, nil
}

func printRecords(w io.Writer, records []postgres.Record) error {
	for i := range records {
		line, err := recordLine(&records[i])
		if err != nil {
			return err
		}
		if _, err := w.Write(line); err != nil {
			return fmt.Errorf("print record: %w", err)
		}
	}
	return nil
}

// A record as a line of JSON is a lineHead, the data, and a lineTail. The data
// is its very bytes wherever a line can hold them; where it cannot, DataBase64
// has them, and data the same value written otherwise, or null.
type lineHead struct {
	Position int64         `json:"position"`
	ID       string        `json:"id"`
	Kind     postgres.Kind `json:"kind"`
	Account  string        `json:"account"`
	Type     string        `json:"type"`
	Subject  string        `json:"subject"`
}

type lineTail struct {
	DataBase64 string            `json:"dataBase64,omitempty"`
	Metadata   map[string]string `json:"metadata"`
	OccurredAt time.Time         `json:"occurredAt"`
	RecordedAt time.Time         `json:"recordedAt"`
}

// recordLine is the record as one line that is safe to show: no control
// character is in it but the newline at its end.
func recordLine(r *postgres.Record) ([]byte, error) {
	data, same := printableJSON(r.Data)
	behind := lineTail{Metadata: orEmpty(r.Metadata), OccurredAt: r.OccurredAt.UTC(), RecordedAt: r.RecordedAt.UTC()}
	if !same {
		behind.DataBase64 = base64.StdEncoding.EncodeToString(r.Data)
	}
	// encoding/json would rewrite the data, so the line is put together here.
	head, err := json.Marshal(lineHead{r.Position, r.ID, r.Kind, r.Account, r.Type, r.Subject})
	if err != nil {
		return nil, fmt.Errorf("encode record: %w", err)
	}
	tail, err := json.Marshal(behind)
	if err != nil {
		return nil, fmt.Errorf("encode record: %w", err)
	}
	head, _ = printableJSON(head)
	tail, _ = printableJSON(tail)
	line := append(head[:len(head)-1], `,"data":`...)
	line = append(line, data...)
	line = append(line, ',')
	line = append(line, tail[1:]...)
	return append(line, '\n'), nil
}

func orEmpty(m map[string]string) map[string]string {
	if m == nil {
		return map[string]string{}
	}
	return m
}

// printableJSON writes a JSON value without what a terminal might obey or
// hide: line breaks between its parts become spaces, control and direction
// characters in its strings escapes. same says that nothing had to be changed.
// What is no JSON becomes null.
func printableJSON(data []byte) (printable []byte, same bool) {
	if !utf8.Valid(data) || !json.Valid(data) {
		return []byte("null"), false
	}
	same = true
	printable = make([]byte, 0, len(data))
	for _, r := range string(data) {
		switch {
		case r == '\n' || r == '\r' || r == '\t':
			printable, same = append(printable, ' '), false
		case r >= 0x7f && r <= 0x9f, r == 0x061c, r >= 0x200e && r <= 0x200f,
			r >= 0x2028 && r <= 0x202e, r >= 0x2066 && r <= 0x2069:
			// In valid JSON these are inside strings only.
			printable, same = fmt.Appendf(printable, `\u%04x`, r), false
		default:
			printable = utf8.AppendRune(printable, r)
		}
	}
	return printable, same
}
