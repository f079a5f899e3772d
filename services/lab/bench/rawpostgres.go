package bench

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"posthorn/services/internal/postgres"
)

// rawClients is how many connections pgbench has, as many as the API.
const rawClients = 16

// Inserts measures Postgres alone, with pgbench: how many rows a second go into
// a plain table with a primary key, durably, in transactions of the given
// number of rows. With a rate of transactions it also measures the latency of
// one, from the time at which it was due.
func (s *Site) Inserts(ctx context.Context, rows int, rate float64, seconds int) (perSecond float64, latency *Histogram, err error) {
	name := s.newName()
	address, err := s.NewDatabase(ctx, name)
	if err != nil {
		return 0, nil, err
	}
	db, err := postgres.Open(address.String(), "bench", 1)
	if err != nil {
		return 0, nil, err
	}
	defer func() { err = errors.Join(err, db.Close(), s.DropDatabase(ctx, name)) }()
	if _, err := db.ExecContext(ctx, `
		CREATE TABLE raw (
			position bigserial PRIMARY KEY, type text NOT NULL, subject text NOT NULL, data bytea NOT NULL,
			recorded_at timestamptz NOT NULL DEFAULT clock_timestamp())`); err != nil {
		return 0, nil, fmt.Errorf("make table: %w", err)
	}
	dir, err := os.MkdirTemp(s.config.Dir, "pgbench-")
	if err != nil {
		return 0, nil, fmt.Errorf("make folder: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	script := filepath.Join(dir, "insert.sql")
	if err := os.WriteFile(script, []byte(insertScript(rows)), 0o600); err != nil {
		return 0, nil, fmt.Errorf("write script: %w", err)
	}
	args := []string{"-n", "-M", "prepared", "-c", strconv.Itoa(rawClients), "-j", "2", "-T", strconv.Itoa(seconds), "-f", script}
	if rate > 0 {
		args = append(args, "-R", strconv.FormatFloat(rate, 'f', 0, 64), "-l")
	}
	pgbench, err := s.pgbench()
	if err != nil {
		return 0, nil, err
	}
	cmd := exec.CommandContext(ctx, pgbench, append(args, address.String())...) //nolint:gosec // of Postgres
	cmd.Dir, cmd.Env = dir, []string{"PATH=/usr/bin:/bin", "HOME=" + dir}
	out, err := cmd.CombinedOutput()
	if err != nil {
		return 0, nil, fmt.Errorf("pgbench: %w: %s", err, out)
	}
	tps, err := readTPS(string(out))
	if err != nil {
		return 0, nil, err
	}
	if rate > 0 {
		if latency, err = readPgbenchLogs(dir); err != nil {
			return 0, nil, err
		}
	}
	return tps * float64(rows), latency, nil
}

// pgbench is this machine's, also for the servers of another root file system.
func (s *Site) pgbench() (string, error) {
	if s.config.Chroot == "" {
		return filepath.Join(s.Postgres.BinDir(), "pgbench"), nil
	}
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/pgbench")
	if err != nil || len(found) == 0 {
		return "", errors.Join(errors.New("find pgbench: it takes Postgres on this machine too"), err)
	}
	return found[len(found)-1], nil
}

func insertScript(rows int) string {
	data := string(appendData(nil, 1, time.Now(), payloadBytes*2/3))
	return fmt.Sprintf("\\set n random(1, 1000000000)\nINSERT INTO raw (type, subject, data)"+
		" SELECT '%s', 'order/' || :n || i, convert_to('%s', 'UTF8') FROM generate_series(1, %d) i;\n", eventType, data, rows)
}

var errPgbench = errors.New("output of pgbench that cannot be read")

func readTPS(out string) (float64, error) {
	for line := range strings.Lines(out) {
		if text, ok := strings.CutPrefix(line, "tps = "); ok {
			number, _, _ := strings.Cut(text, " ")
			tps, err := strconv.ParseFloat(number, 64)
			if err != nil {
				return 0, fmt.Errorf("%w: %w", errPgbench, err)
			}
			return tps, nil
		}
	}
	return 0, fmt.Errorf("%w: %s", errPgbench, out)
}

// readPgbenchLogs reads a line for each transaction; its third word is how
// many microseconds it took since it was due.
func readPgbenchLogs(dir string) (*Histogram, error) {
	paths, err := filepath.Glob(filepath.Join(dir, "pgbench_log.*"))
	if err != nil {
		return nil, fmt.Errorf("find logs of pgbench: %w", err)
	}
	h := &Histogram{}
	for _, path := range paths {
		file, err := os.Open(path) //nolint:gosec // in our own folder
		if err != nil {
			return nil, fmt.Errorf("read log of pgbench: %w", err)
		}
		lines := bufio.NewScanner(file)
		for lines.Scan() {
			words := strings.Fields(lines.Text())
			if len(words) < 3 {
				continue // the last line may be truncated
			}
			µs, err := strconv.ParseInt(words[2], 10, 64)
			if err != nil {
				continue // skipped or failed, in words
			}
			h.Record(time.Duration(µs) * time.Microsecond)
		}
		if err := errors.Join(lines.Err(), file.Close()); err != nil {
			return nil, fmt.Errorf("read log of pgbench: %w", err)
		}
	}
	if h.Total == 0 {
		return nil, fmt.Errorf("%w: no transaction in its logs", errPgbench)
	}
	return h, nil
}
