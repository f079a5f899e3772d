// Bench measures Posthorn on private servers and writes a table.
//
//	bench [-runs 3] [-only regexp] [-quick] [-results bin/bench.json] [-table docs/performance.md]
//
// Its exit status is 1 if a scenario could not be run, or if the arrivals
// differ from the accepted events. Figures that miss their goal do not affect
// it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"syscall"

	"posthorn/services/lab/bench"
	"posthorn/services/lab/site"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	var err error
	if len(os.Args) > 1 && os.Args[1] == "receiver" {
		err = receive(ctx)
	} else {
		err = run(ctx)
	}
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// receive is the process that accepts deliveries. It ends with its standard
// input, so that it cannot outlive its parent.
func receive(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r, err := bench.NewReceiver(ctx)
	if err != nil {
		return err
	}
	fmt.Println(r.Addresses())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	return r.Run(ctx)
}

func run(ctx context.Context) (err error) {
	binary := flag.String("posthorn", "bin/posthorn", "the command to measure")
	only := flag.String("only", "", "run the scenarios whose names match this regular expression")
	runs := flag.Int("runs", 3, "number of runs of each scenario")
	long := flag.Int("long", 1, "number of runs of the scenarios that take minutes")
	quick := flag.Bool("quick", false, "run with a tenth of the events")
	table := flag.String("table", "", "document to write the table to; scenarios that are not run keep their results")
	results := flag.String("results", "bin/bench.json", "file that keeps the figures of all runs")
	profiles := flag.String("pprof", "", "folder for CPU profiles of Posthorn")
	chroot := flag.String("chroot", "", "measure the servers of the root file system in this `folder` (takes root)")
	keep := flag.Bool("keep", false, "keep the logs")
	flag.Parse()
	pattern, err := regexp.Compile(*only)
	if err != nil {
		return fmt.Errorf("read -only: %w", err)
	}
	path, err := filepath.Abs(*binary)
	if err != nil {
		return fmt.Errorf("find the command: %w", err)
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find myself: %w", err)
	}
	if *profiles != "" {
		if err := os.MkdirAll(*profiles, 0o750); err != nil {
			return fmt.Errorf("make folder for profiles: %w", err)
		}
	}
	in := ""
	if *chroot != "" {
		in = filepath.Join(*chroot, "srv")
	}
	dir, remove, err := site.Folder(in, "posthorn-bench-")
	if err != nil {
		return err
	}
	if *keep {
		fmt.Println("logs are in", dir)
	} else {
		defer func() { err = errors.Join(err, remove()) }()
	}
	at, err := bench.NewSite(ctx, bench.SiteConfig{
		Dir: dir, Chroot: *chroot, Binary: path, Receiver: []string{self, "receiver"}, Profiles: *profiles,
		Progress: func(format string, args ...any) { fmt.Printf(format+"\n", args...) },
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, at.Close()) }() //nolint:contextcheck // must run even if ctx has ended

	report := &bench.Report{}
	if err := site.Load(*results, report); err != nil {
		return err
	}
	if report.Machine, err = at.Machine(ctx); err != nil {
		return err
	}
	var failed []error
	for _, s := range bench.Scenarios() {
		if !pattern.MatchString(s.Name) {
			continue
		}
		times := *runs
		if s.Long {
			times = min(times, *long)
		}
		result, err := bench.Measure(ctx, at, s, times, *quick)
		if ctx.Err() != nil {
			return err
		}
		failed = append(failed, err)
		report.Put(result)
		if err := site.Save(*results, report); err != nil {
			return err
		}
	}
	fmt.Print("\n", report.Table())
	if *table != "" {
		failed = append(failed, write(*table, report))
	}
	return errors.Join(failed...)
}

// write writes the results into the document, and the plots beside it.
func write(path string, report *bench.Report) error {
	plots, err := report.Plots(filepath.Base(path))
	if err != nil {
		return err
	}
	for name, svg := range plots {
		if err := os.WriteFile(filepath.Join(filepath.Dir(path), name), svg, 0o644); err != nil { //nolint:gosec // a document
			return fmt.Errorf("write plot: %w", err)
		}
	}

	earlier, err := os.ReadFile(path) //nolint:gosec // a flag
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read document: %w", err)
	}
	if err := os.WriteFile(path, []byte(report.Document(filepath.Base(path), string(earlier))), 0o644); err != nil { //nolint:gosec // a document
		return fmt.Errorf("write document: %w", err)
	}
	return nil
}
