package bench

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"

	"posthorn/services/internal/postgres"
)

// Machine describes the machine and the measured versions.
func (s *Site) Machine(ctx context.Context) (string, error) {
	db, err := postgres.Open(s.Postgres.URL(), "bench", 1)
	if err != nil {
		return "", err
	}
	var pg string
	if err := db.QueryRowContext(ctx, "SHOW server_version").Scan(&pg); err != nil {
		return "", errors.Join(fmt.Errorf("ask for the version of postgres: %w", err), db.Close())
	}
	var mq struct {
		Version string `json:"rabbitmq_version"`
	}
	if err := errors.Join(db.Close(), s.Manage(ctx, http.MethodGet, "/overview", nil, &mq)); err != nil {
		return "", err
	}
	version, err := exec.CommandContext(ctx, s.config.Binary, "version").Output() //nolint:gosec // the caller's own command
	if err != nil {
		return "", fmt.Errorf("ask for the version of posthorn: %w", err)
	}
	pg, _, _ = strings.Cut(pg, " ")
	return fmt.Sprintf("Measured: %s (%s), Postgres %s, RabbitMQ %s; %s/%s, %d CPUs (%s), %s of memory.", strings.TrimSpace(string(version)),
		runtime.Version(), pg, mq.Version, runtime.GOOS, runtime.GOARCH, runtime.NumCPU(),
		valueIn("/proc/cpuinfo", "model name"), valueIn("/proc/meminfo", "MemTotal")), nil
}

// valueIn finds a value in a file of the kernel.
func valueIn(path, name string) string {
	content, err := os.ReadFile(path) //nolint:gosec // of the kernel
	if err != nil {
		return "unknown"
	}
	for line := range strings.Lines(string(content)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return "unknown"
}

// loadAverage is the load average of the last minute.
func loadAverage() float64 {
	content, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return 0
	}
	text, _, _ := strings.Cut(string(content), " ")
	load, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return 0
	}
	return load
}
