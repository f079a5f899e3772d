package site

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Call makes a request with JSON, requires a 2xx, and reads the response. Body
// and answer may be nil.
func Call(ctx context.Context, method, address string, body, answer any) error {
	var payload []byte
	if body != nil {
		var err error
		if payload, err = json.Marshal(body); err != nil {
			return fmt.Errorf("encode request: %w", err)
		}
	}
	request, err := http.NewRequestWithContext(ctx, method, address, bytes.NewReader(payload))
	if err != nil {
		return fmt.Errorf("make request: %w", err)
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, request.URL.Redacted(), err)
	}
	defer func() { _ = response.Body.Close() }() // read to its end
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, request.URL.Redacted(), err)
	}
	if response.StatusCode/100 != 2 {
		return fmt.Errorf("%s %s: status %d: %s", method, request.URL.Redacted(), response.StatusCode, text)
	}
	if answer == nil {
		return nil
	}
	if err := json.Unmarshal(text, answer); err != nil {
		return fmt.Errorf("%s %s: decode answer: %w", method, request.URL.Redacted(), err)
	}
	return nil
}

// Metric returns the value of a metric without labels, of the process that
// serves its metrics at the address.
func Metric(ctx context.Context, address, name string) (float64, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/metrics", http.NoBody)
	if err != nil {
		return 0, fmt.Errorf("ask for metrics: %w", err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, fmt.Errorf("ask for metrics: %w", err)
	}
	defer func() { _ = response.Body.Close() }() // read only
	for lines := bufio.NewScanner(response.Body); lines.Scan(); {
		if text, ok := strings.CutPrefix(lines.Text(), name+" "); ok {
			value, err := strconv.ParseFloat(text, 64)
			if err != nil {
				return 0, fmt.Errorf("read metric %s: %w", name, err)
			}
			return value, nil
		}
	}
	return 0, fmt.Errorf("%s has no metric %s", address, name)
}

// FreeAddrs returns distinct addresses without a listener.
func FreeAddrs(ctx context.Context, n int) (addrs []string, err error) {
	for range n {
		l, failed := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
		if failed != nil {
			return nil, fmt.Errorf("find a port: %w", failed)
		}
		defer func() { err = errors.Join(err, l.Close()) }() // once all are found, so that they differ
		addrs = append(addrs, l.Addr().String())
	}
	return addrs, nil
}

// AwaitReady waits until the part at an address is ready, or its process has
// ended.
func AwaitReady(ctx context.Context, within time.Duration, addr string, p *Process) error {
	var ended error
	err := Await(ctx, within, addr+" is ready", func() bool {
		select {
		case <-p.Done():
			ended = errors.Join(errors.New("it ended before it was ready"), p.Err())
			return true
		default:
			return Ready(ctx, addr)
		}
	})
	return errors.Join(err, ended)
}

// Ready reports whether the part at an address is ready.
func Ready(ctx context.Context, addr string) bool {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/readyz", http.NoBody)
	if err != nil {
		return false
	}
	// On a new connection: one to its predecessor would be closed.
	client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		return false
	}
	return response.Body.Close() == nil && response.StatusCode == http.StatusOK
}

// Await polls a condition every 50 ms until it holds.
func Await(ctx context.Context, within time.Duration, what string, done func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	for !done() {
		if ctx.Err() != nil {
			return fmt.Errorf("wait until %s: %w", what, ctx.Err())
		}
		Pause(ctx, 50*time.Millisecond)
	}
	return nil
}

// Pause waits for a time, or until ctx ends.
func Pause(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
