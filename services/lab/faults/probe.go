package faults

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"posthorn/services/lab/site"
)

// metric reads a part's metric without labels.
func (c *Cluster) metric(ctx context.Context, part, name string) (float64, error) {
	return site.Metric(ctx, c.addrs[part], name)
}

// leader returns the leading relay.
func (c *Cluster) leader(ctx context.Context) (string, error) {
	for name := range c.parts {
		if !strings.HasPrefix(name, "relay") {
			continue
		}
		if v, err := c.metric(ctx, name, "posthorn_relay_leading"); err == nil && v == 1 {
			return name, nil
		}
	}
	return "", errors.New("no relay leads")
}

// logged reports whether a line with both texts was logged.
func (c *Cluster) logged(what, of string) error {
	content, err := os.ReadFile(filepath.Join(c.dir, "posthorn.log"))
	if err != nil {
		return fmt.Errorf("read log: %w", err)
	}
	for line := range bytes.Lines(content) {
		if bytes.Contains(line, []byte(what)) && bytes.Contains(line, []byte(of)) {
			return nil
		}
	}
	return fmt.Errorf("nothing in the log says %q of %s", what, of)
}

// cpu returns the share of a processor that parts use over a period.
func (c *Cluster) cpu(ctx context.Context, over time.Duration, parts ...string) (float64, error) {
	before, err := c.used(parts)
	if err != nil {
		return 0, err
	}
	begun := time.Now()
	site.Pause(ctx, over)
	after, err := c.used(parts)
	return (after - before).Seconds() / time.Since(begun).Seconds(), err
}

// used returns the CPU time of parts.
func (c *Cluster) used(parts []string) (sum time.Duration, err error) {
	for _, name := range parts {
		cpu, err := site.CPUOf(c.parts[name].PID())
		if err != nil {
			return 0, fmt.Errorf("look at %s: %w", name, err)
		}
		sum += cpu
	}
	return sum, nil
}

// memory returns the memory of a part, in bytes.
func (c *Cluster) memory(name string) (int64, error) {
	now, _, err := site.MemoryOf(c.parts[name].PID())
	if err != nil {
		return 0, fmt.Errorf("look at %s: %w", name, err)
	}
	return now, nil
}
