package faults

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"posthorn/services/internal/privateserver"
	"posthorn/services/lab/site"
)

// clocks are rows in which the clock of Postgres jumps, which sets all due
// times.
func clocks() []Scenario {
	jump := func(by ...string) func(context.Context, *Cluster) error {
		return func(ctx context.Context, c *Cluster) error {
			// Retries have due times.
			c.Sink.Behave("victim", Flapping)
			defer c.Sink.Behave("victim", Well)
			return jumps(ctx, c, by)
		}
	}
	return []Scenario{
		{Name: "clock of Postgres an hour ahead for 6 s, and back", Servers: otherClock, Inject: jump("+3600", "+0")},
		{Name: "clock of Postgres an hour behind for 6 s, and back", Servers: otherClock, Inject: jump("-3600", "+0")},
	}
}

const clockFile = "clock"

func jumps(ctx context.Context, c *Cluster, by []string) error {
	for _, offset := range by {
		if err := setClock(c.dir, offset); err != nil {
			return err
		}
		site.Pause(ctx, 2*time.Second) // the file is read every second
		var skew float64
		err := c.db.QueryRowContext(ctx, `SELECT extract(epoch FROM clock_timestamp())`).Scan(&skew)
		if err != nil {
			return fmt.Errorf("ask for the time: %w", err)
		}
		skew -= float64(time.Now().Unix())
		if jumped := skew > 3000 || skew < -3000; jumped != (offset != "+0") {
			return fmt.Errorf("the clock of postgres is off by %.0f s, asked for %s", skew, offset)
		}
		site.Pause(ctx, 4*time.Second)
	}
	return nil
}

func setClock(dir, offset string) error {
	// Replace the file atomically: half an offset would be a different one.
	path := filepath.Join(dir, clockFile)
	if err := os.WriteFile(path+".new", []byte(offset+"\n"), 0o644); err != nil { //nolint:gosec // read by a server's user
		return fmt.Errorf("set clock: %w", err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return fmt.Errorf("set clock: %w", err)
	}
	return nil
}

// otherClock is a Postgres whose clock a file sets.
func otherClock(ctx context.Context, dir string) (*site.Servers, func() error, error) {
	found, err := filepath.Glob("/usr/lib/*/faketime/libfaketimeMT.so.1")
	if err != nil {
		return nil, nil, fmt.Errorf("find libfaketime: %w", err)
	}
	if len(found) == 0 {
		return nil, nil, NotRunError{"it takes libfaketime (Debian's package faketime)"}
	}
	bin, err := programs(dir, found[0])
	if err != nil {
		return nil, nil, err
	}
	if err := setClock(dir, "+0"); err != nil {
		return nil, nil, err
	}
	servers, err := site.Start(ctx, privateserver.Options{Dir: filepath.Join(dir, "postgres"), BinDir: bin},
		privateserver.Options{Dir: filepath.Join(dir, "rabbitmq")})
	if err != nil {
		return nil, nil, err
	}
	return servers, servers.Kill, nil
}

// programs creates a folder with the programs of Postgres, in which the server
// itself starts with another clock.
func programs(dir, library string) (string, error) {
	versions, err := filepath.Glob("/usr/lib/postgresql/*/bin")
	if err != nil || len(versions) == 0 {
		return "", NotRunError{"it takes the programs of Postgres where Debian has them"}
	}
	its, bin := versions[len(versions)-1], filepath.Join(dir, "bin")
	if err := os.Mkdir(bin, 0o755); err != nil { //nolint:gosec // a server's user runs them
		return "", fmt.Errorf("make folder: %w", err)
	}
	entries, err := os.ReadDir(its)
	if err != nil {
		return "", fmt.Errorf("list programs: %w", err)
	}
	var errs []error
	for _, e := range entries {
		if e.Name() != "postgres" {
			errs = append(errs, os.Symlink(filepath.Join(its, e.Name()), filepath.Join(bin, e.Name())))
		}
	}
	script := fmt.Sprintf("#!/bin/sh\nLD_PRELOAD=%s FAKETIME_TIMESTAMP_FILE=%s FAKETIME_CACHE_DURATION=1 FAKETIME_DONT_FAKE_MONOTONIC=1 exec %s/postgres \"$@\"\n",
		library, filepath.Join(dir, clockFile), its)
	errs = append(errs, os.WriteFile(filepath.Join(bin, "postgres"), []byte(script), 0o755)) //nolint:gosec // as above
	if err := errors.Join(errs...); err != nil {
		return "", fmt.Errorf("make programs: %w", err)
	}
	return bin, nil
}
