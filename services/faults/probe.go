package faults

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// metric reads a part's metric that has no labels.
func (c *Cluster) metric(ctx context.Context, part, name string) (float64, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+c.addrs[part]+"/metrics", http.NoBody)
	if err != nil {
		return 0, fmt.Errorf("make request: %w", err)
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, fmt.Errorf("read metrics of %s: %w", part, err)
	}
	defer func() { _ = response.Body.Close() }() // only read
	for lines := bufio.NewScanner(response.Body); lines.Scan(); {
		if text, ok := strings.CutPrefix(lines.Text(), name+" "); ok {
			value, err := strconv.ParseFloat(text, 64)
			if err != nil {
				return 0, fmt.Errorf("read metric: %w", err)
			}
			return value, nil
		}
	}
	return 0, fmt.Errorf("%s has no metric %s", part, name)
}

// leader is the relay that leads.
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

// cpu is how much of a processor parts use, over a time.
func (c *Cluster) cpu(ctx context.Context, over time.Duration, parts ...string) (float64, error) {
	before, err := c.ticks(parts)
	if err != nil {
		return 0, err
	}
	begun := time.Now()
	pause(ctx, over)
	after, err := c.ticks(parts)
	const perSecond = 100 // USER_HZ, on every Linux
	return float64(after-before) / perSecond / time.Since(begun).Seconds(), err
}

func (c *Cluster) ticks(parts []string) (sum int, err error) {
	for _, name := range parts {
		content, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", c.parts[name].id()))
		if err != nil {
			return 0, fmt.Errorf("look at %s: %w", name, err)
		}
		// The name of the program, in brackets, may hold anything.
		fields := strings.Fields(string(content[bytes.LastIndexByte(content, ')')+1:]))
		for _, at := range []int{11, 12} { // utime and stime
			n, err := strconv.Atoi(fields[at])
			if err != nil {
				return 0, fmt.Errorf("look at %s: %w", name, err)
			}
			sum += n
		}
	}
	return sum, nil
}

// memory is what a part occupies, in MB.
func (c *Cluster) memory(name string) (int, error) {
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.parts[name].id()))
	if err != nil {
		return 0, fmt.Errorf("look at %s: %w", name, err)
	}
	for line := range strings.Lines(string(content)) {
		if text, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kB, err := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(text), " kB"))
			if err != nil {
				return 0, fmt.Errorf("look at %s: %w", name, err)
			}
			return kB >> 10, nil
		}
	}
	return 0, fmt.Errorf("%s does not say what it occupies", name)
}

// id is the process's, 0 where it does not run.
func (p *part) id() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.pid
}
