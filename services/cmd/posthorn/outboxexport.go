package main

import (
	"bufio"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"time"

	"posthorn/services/internal/eventlog"
)

type exportCmd struct {
	databaseFlags
	sliceFlags
	Output string `short:"o" help:"File to write, replaced if it exists. It gets this name only once it is complete. Default: standard output." placeholder:"FILE" type:"path"`
	Quiet  bool   `help:"Show no progress."`
}

// Help is shown by --help.
func (exportCmd) Help() string {
	return `Exports events only, unless --kind says otherwise: the other kinds have a meaning only in their own log, and are not imported.

A line has a whole record: id, kind, account, type, subject, data, metadata, occurredAt, and for information position and recordedAt, ` +
		`which an import assigns again. If data cannot have the exact bytes, dataBase64 has them.`
}

func (c *exportCmd) Run(ctx context.Context, e *env) error {
	pool, err := c.open("outbox", 2)
	if err != nil {
		return err
	}
	defer func() { _ = pool.Close() }()
	if len(c.Kind) == 0 {
		c.Kind = []string{string(eventlog.KindEvent)}
	}
	slice, err := c.slice(ctx, pool)
	if err != nil {
		return err
	}
	report := newProgress(e.errOut, c.Quiet)
	if c.Output == "" {
		return c.write(ctx, pool, slice, e.out, report)
	}
	return wholeFile(c.Output, func(w io.Writer) error { return c.write(ctx, pool, slice, w, report) })
}

func (c *exportCmd) write(ctx context.Context, pool *sql.DB, slice eventlog.Slice, w io.Writer, report *progress) error {
	out := bufio.NewWriterSize(w, 1<<16)
	n := 0
	for slice.After < slice.Through {
		records, reached, err := eventlog.ReadSlice(ctx, pool, slice, math.MaxInt)
		if err != nil {
			return notDone(ctx, fmt.Errorf("export: %w", err))
		}
		if err := printRecords(out, records); err != nil {
			return err
		}
		n, slice.After = n+len(records), reached
		report.show("exported %d records, at position %d of %d\n", n, reached, slice.Through)
	}
	if err := out.Flush(); err != nil {
		return fmt.Errorf("write export: %w", err)
	}
	report.end("exported %d records up to position %d\n", n, slice.Through)
	return nil
}

// wholeFile writes a file that gets its name only once it is complete. Only its
// owner may read it, since it has data of the log.
func wholeFile(name string, write func(io.Writer) error) (err error) {
	// A random name: a file with a predictable name may be a planted link to
	// another file, or readable by others.
	f, err := os.CreateTemp(filepath.Dir(name), filepath.Base(name)+".*.part")
	if err != nil {
		return fmt.Errorf("open file: %w", err)
	}
	part := f.Name()
	defer func() {
		if err != nil {
			_ = os.Remove(part) // the first error says more
		}
	}()
	if err := write(f); err != nil {
		return errors.Join(err, f.Close())
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("write file: %w", err)
	}
	if err := os.Rename(part, name); err != nil {
		return fmt.Errorf("name file: %w", err)
	}
	return nil
}

// notDone turns an interruption into an error that says how far the command
// came, for commands that must complete.
func notDone(ctx context.Context, err error, reached ...string) error {
	if ctx.Err() != nil {
		return errors.New(strings.Join(append([]string{"stopped before the end"}, reached...), "; "))
	}
	return err
}

// progress reports on long runs.
type progress struct {
	w     io.Writer
	quiet bool
	every time.Duration
	last  time.Time
}

func newProgress(w io.Writer, quiet bool) *progress {
	return &progress{w: w, quiet: quiet, every: 2 * time.Second, last: time.Now()}
}

// show prints the line if enough time has passed since the last one.
func (p *progress) show(format string, args ...any) {
	if time.Since(p.last) >= p.every {
		p.end(format, args...)
	}
}

// end prints the line.
func (p *progress) end(format string, args ...any) {
	p.last = time.Now()
	if !p.quiet {
		_, _ = fmt.Fprintf(p.w, format, args...)
	}
}
