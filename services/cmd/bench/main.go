// Bench measures Posthorn on servers of its own and writes a table.
//
//	bench [-runs 3] [-only regexp] [-quick] [-table docs/performance.md]
//
// Its exit status is 1 where a scenario could not be run, or where what
// arrived was not what was accepted. Figures that miss their goal are for the
// reader to judge.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"syscall"

	"posthorn/services/bench"
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

// receive is the process that takes deliveries. It ends with its standard
// input, so that it cannot outlive the one that started it.
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
	runs := flag.Int("runs", 3, "how often each scenario is run")
	quick := flag.Bool("quick", false, "a tenth of the events")
	profiles := flag.String("pprof", "", "folder that CPU profiles of Posthorn are written to")
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
	dir, err := os.MkdirTemp("", "posthorn-bench-")
	if err != nil {
		return fmt.Errorf("make folder: %w", err)
	}
	if err := os.Chmod(dir, 0o711); err != nil { //nolint:gosec // the servers' users have to pass through
		return fmt.Errorf("open folder to the servers: %w", err)
	}
	if *keep {
		fmt.Println("logs are in", dir)
	} else {
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	}
	site, err := bench.NewSite(ctx, bench.SiteConfig{
		Dir: dir, Binary: path, Receiver: []string{self, "receiver"}, Profiles: *profiles,
		Progress: func(format string, args ...any) { fmt.Printf(format+"\n", args...) },
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, site.Close()) }() //nolint:contextcheck // has to happen whatever ended

	var failed []error
	for _, s := range bench.Scenarios() {
		if !pattern.MatchString(s.Name) {
			continue
		}
		for i := range *runs {
			fmt.Printf("%s, run %d of %d\n", s.Name, i+1, *runs)
			if _, err := bench.RunOnce(ctx, site, s, *quick); err != nil {
				if ctx.Err() != nil {
					return err
				}
				fmt.Println(" ", err)
				failed = append(failed, err)
			}
		}
	}
	return errors.Join(failed...)
}
