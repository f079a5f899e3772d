package main

import (
	"bufio"
	"bytes"
	"context"
	"database/sql"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"unicode/utf8"

	"posthorn/events"
	"posthorn/services/internal/eventlog"
)

type importCmd struct {
	databaseFlags
	File   string `arg:"" help:"File written by export, or - for standard input."`
	DryRun bool   `help:"Check the lines, count what would be appended, and change nothing."`
	Quiet  bool   `help:"Show no progress."`
}

// Help is shown by --help.
func (importCmd) Help() string {
	return `They become events like any other: matching subscriptions get them. Ids and times stay, positions are new. ` +
		`An id that is in the log with the same content is counted and left alone, so an interrupted import can be run again; ` +
		`with other content it is an error.

The whole file is checked before the first event is appended. Events are appended in batches, each as a whole or not at all. ` +
		`Lines of kinds other than event are counted and skipped.`
}

// Bounds of a batch, and of a line: a megabyte of data as escapes.
const (
	importEvents = 500
	importBytes  = 4 << 20
	maxLine      = 16 << 20
)

func (c *importCmd) Run(ctx context.Context, e *env) error {
	var in io.Reader = os.Stdin
	if c.File != "-" {
		f, err := os.Open(c.File)
		if err != nil {
			return fmt.Errorf("open file: %w", err)
		}
		defer func() { _ = f.Close() }()
		if in, err = checked(ctx, f); err != nil {
			return notDone(ctx, fmt.Errorf("import: %w; nothing was appended", err))
		}
	}
	pool, err := c.open("outbox", 2)
	if err != nil {
		return err
	}
	defer func() { _ = pool.Close() }()
	i := importing{pool: pool, dry: c.DryRun, progress: newProgress(e.errOut, c.Quiet)}
	if err := i.run(ctx, in); err != nil {
		return notDone(ctx, fmt.Errorf("import: %w; %s", err, i.counts()), i.counts())
	}
	_, err = fmt.Fprintln(e.out, i.counts())
	return err
}

// checked reads all lines of a file that can be read twice, so that errors are
// found before anything is appended.
func checked(ctx context.Context, f *os.File) (io.Reader, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("inspect file: %w", err)
	}
	if !info.Mode().IsRegular() {
		return f, nil
	}
	if err := eachLine(f, func(int, *events.Event, int) error { return ctx.Err() }); err != nil {
		return nil, err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, fmt.Errorf("seek to the beginning of the file: %w", err)
	}
	return f, nil
}

// importing is the state of an import.
type importing struct {
	pool     *sql.DB
	dry      bool
	progress *progress

	batch                    []events.Event
	lines                    []int // where the events of the batch come from
	size                     int
	appended, there, leftOut int
}

func (i *importing) counts() string {
	did := "appended"
	if i.dry {
		did = "to be appended"
	}
	return fmt.Sprintf("%d events %s, %d in the log already, %d lines of other kinds left out", i.appended, did, i.there, i.leftOut)
}

func (i *importing) run(ctx context.Context, in io.Reader) error {
	err := eachLine(in, func(line int, e *events.Event, size int) error {
		if e == nil {
			i.leftOut++
			return nil
		}
		i.batch, i.lines, i.size = append(i.batch, *e), append(i.lines, line), i.size+size
		if len(i.batch) < importEvents && i.size < importBytes {
			return nil
		}
		return i.flush(ctx)
	})
	if err != nil {
		return err
	}
	return i.flush(ctx)
}

// flush appends the batch.
func (i *importing) flush(ctx context.Context) error {
	if len(i.batch) == 0 {
		return ctx.Err()
	}
	var (
		n   int
		err error
	)
	if i.dry {
		var missing []int
		missing, err = eventlog.Missing(ctx, i.pool, i.batch)
		n = len(missing)
	} else {
		n, err = eventlog.Import(ctx, i.pool, i.batch)
	}
	if conflict, ok := errors.AsType[*eventlog.ConflictError](err); ok {
		at := conflict.Indexes[0]
		return fmt.Errorf("line %d: event %q is in the log with other content", i.lines[at], i.batch[at].ID)
	}
	if err != nil {
		return fmt.Errorf("lines %d to %d: %w", i.lines[0], i.lines[len(i.lines)-1], err)
	}
	i.appended += n
	i.there += len(i.batch) - n
	i.progress.show("line %d: %s\n", i.lines[len(i.lines)-1], i.counts())
	i.batch, i.lines, i.size = i.batch[:0], i.lines[:0], 0
	return nil
}

// eachLine reads lines of JSON; do gets nil for a record that is not an event.
// An error names the line.
func eachLine(in io.Reader, do func(line int, e *events.Event, size int) error) error {
	scanner := bufio.NewScanner(in)
	scanner.Buffer(make([]byte, 0, 1<<16), maxLine)
	n := 0
	for scanner.Scan() {
		n++
		if len(bytes.TrimSpace(scanner.Bytes())) == 0 {
			continue
		}
		e, err := parseLine(scanner.Bytes())
		if err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
		if err := do(n, e, len(scanner.Bytes())); err != nil {
			return err
		}
	}
	if err := scanner.Err(); err != nil {
		return fmt.Errorf("line %d: %w", n+1, err)
	}
	return nil
}

// parseLine parses the output of recordLine; it returns nil for a record that is not an event.
func parseLine(line []byte) (*events.Event, error) {
	var r struct {
		lineHead
		Data json.RawMessage `json:"data"`
		lineTail
		OccurredAt string          `json:"occurredAt"` // parsed like any other time
		Extensions json.RawMessage `json:"extensions"`
	}
	if !utf8.Valid(line) {
		return nil, errors.New("not UTF-8")
	}
	decoder := json.NewDecoder(bytes.NewReader(line))
	decoder.DisallowUnknownFields() // unknown fields would be lost
	if err := decoder.Decode(&r); err != nil {
		return nil, fmt.Errorf("not a record of the log: %w", err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("not a record of the log: trailing data")
	}
	switch r.Kind {
	case eventlog.KindEvent, "":
	case eventlog.KindTest, eventlog.KindSubscription:
		return nil, nil //nolint:nilnil // as documented
	default:
		return nil, fmt.Errorf("kind %q: want event, test or subscription", r.Kind)
	}
	e := events.Event{
		ID: r.ID, Account: r.Account, Type: r.Type, Subject: r.Subject, Data: r.Data, Metadata: r.Metadata,
	}
	if len(r.Extensions) > 0 {
		if err := e.ParseAttributes(r.Extensions); err != nil {
			return nil, err
		}
	}
	e.Source, e.SourceID, e.DataSchema, e.ContentType = r.Source, r.SourceID, r.DataSchema, r.ContentType
	if !e.JSON() {
		e.Data = []byte{}
	}
	if r.OccurredAt != "" {
		var err error
		if e.OccurredAt, err = events.ParseTime(r.OccurredAt); err != nil {
			return nil, fmt.Errorf("occurredAt %q: %w", r.OccurredAt, err)
		}
	}
	if r.DataBase64 != "" {
		data, err := base64.StdEncoding.Strict().DecodeString(r.DataBase64)
		if err != nil {
			return nil, fmt.Errorf("dataBase64: %w", err)
		}
		e.Data = data
	}
	switch {
	case e.ID == "":
		return nil, errors.New("id is missing: a second import would append the event a second time")
	case e.OccurredAt.IsZero():
		return nil, errors.New("occurredAt is missing")
	case e.Data == nil:
		return nil, errors.New("data is missing")
	}
	return &e, e.Validate()
}
