// Faults runs the fault suite on private servers and writes the table.
//
//	faults [-only text] [-random 5m] [-table docs/faults.md]
//
// Its exit status is 1 if a row fails.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"syscall"
	"time"

	"posthorn/services/lab/faults"
	"posthorn/services/lab/site"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "faults:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) (err error) {
	binary := flag.String("posthorn", "bin/posthorn-failpoints", "the command, built with -tags failpoints")
	only := flag.String("only", "", "run the rows whose names match this regular expression")
	random := flag.Duration("random", 15*time.Second, "how long parts are killed at random")
	table := flag.String("table", "", "file to write the table to; rows that are not run keep their results")
	results := flag.String("results", "bin/faults.json", "file that keeps the rows")
	seed := flag.Uint64("seed", uint64(time.Now().UnixNano()), "seed of the random choices")
	keep := flag.Bool("keep", false, "keep the logs and journals")
	flag.Parse()
	wanted, err := regexp.Compile(*only)
	if err != nil {
		return fmt.Errorf("read -only: %w", err)
	}
	path, err := filepath.Abs(*binary)
	if err != nil {
		return fmt.Errorf("find the command: %w", err)
	}

	dir, remove, err := site.Folder("", "posthorn-faults-")
	if err != nil {
		return err
	}
	if *keep {
		fmt.Println("logs are in", dir)
	} else {
		defer func() { err = errors.Join(err, remove()) }()
	}
	servers, err := faults.StartServers(ctx, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, servers.Kill()) }() //nolint:contextcheck // must run even if ctx has ended

	suite := slices.DeleteFunc(faults.Suite(*random), func(s faults.Scenario) bool { return !wanted.MatchString(s.Name) })
	bench := &faults.Bench{Servers: servers, Binary: path, Dir: dir, Seed: *seed}
	fmt.Println("seed", *seed)
	rows, failed := runRows(ctx, bench, suite, *results)
	if *table != "" {
		versions, err := bench.Versions(ctx)
		if err != nil {
			return errors.Join(failed, err)
		}
		ordered := inOrder(rows, faults.Suite(*random))
		if err := os.WriteFile(*table, []byte(faults.Table(ordered, versions, *seed)), 0o644); err != nil { //nolint:gosec // a document
			return errors.Join(failed, fmt.Errorf("write table: %w", err))
		}
	}
	return failed
}

// runRows runs rows one after another, prints their results, and saves them in
// the file, where rows that are not run keep their results.
func runRows(ctx context.Context, bench *faults.Bench, suite []faults.Scenario, results string) ([]faults.Row, error) {
	var rows []faults.Row
	if err := site.Load(results, &rows); err != nil {
		return nil, err
	}
	var failed []error
	for i, s := range suite {
		if ctx.Err() != nil {
			return rows, errors.Join(append(failed, ctx.Err())...)
		}
		begun := time.Now()
		row, err := bench.Run(ctx, s)
		if err != nil {
			row.Verdict = "could not be run: " + err.Error()
		}
		if row.Verdict != "" {
			failed = append(failed, fmt.Errorf("%s: %s", row.Name, row.Verdict))
		}
		said := row.Verdict
		if row.NotRun != "" {
			said = "not run: " + row.NotRun
		}
		fmt.Printf("%2d/%d %4.0f s  %-62s accepted %6d  lost %d  duplicated %d  recovery %v  %s\n", i+1, len(suite), time.Since(begun).Seconds(),
			row.Name, row.Accepted, row.Lost, row.Duplicated, row.Recovery.Round(100*time.Millisecond), said)
		rows = append(slices.DeleteFunc(rows, func(r faults.Row) bool { return r.Name == row.Name }), row)
		if err := site.Save(results, rows); err != nil {
			return rows, errors.Join(append(failed, err)...)
		}
	}
	return rows, errors.Join(failed...)
}

// inOrder returns the rows in the order of the suite.
func inOrder(rows []faults.Row, suite []faults.Scenario) []faults.Row {
	var ordered []faults.Row
	for _, s := range suite {
		if i := slices.IndexFunc(rows, func(r faults.Row) bool { return r.Name == s.Name }); i >= 0 {
			ordered = append(ordered, rows[i])
		}
	}
	return ordered
}
