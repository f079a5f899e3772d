package faults

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"posthorn/services/lab/site"
)

// callers are faults caused by clients of the API.
func callers() []Scenario {
	return []Scenario{
		{Name: "eight clients that ask for 400 events of 250 KB and do not read", Inject: unread},
		{Name: "400 idle connections to an API that may have 256 files open", Limits: map[string]int{"api": 256}, Inject: idle},
		{Name: "API killed 8 times while subscriptions are made with an Idempotency-Key", Inject: keyed},
	}
}

// idle holds more idle connections than the API has files: active clients must
// not notice, and the idle connections are closed.
func idle(ctx context.Context, c *Cluster) (err error) {
	api, err := url.Parse(c.API)
	if err != nil {
		return fmt.Errorf("read address of the API: %w", err)
	}
	var strangers []net.Conn
	defer func() {
		for _, conn := range strangers {
			_ = conn.Close() // it may be closed already
		}
	}()
	for range 400 {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", api.Host)
		if err != nil {
			return fmt.Errorf("connect: %w", err)
		}
		strangers = append(strangers, conn)
	}
	if err := repeat(20, func() error {
		site.Pause(ctx, 200*time.Millisecond)
		return c.call(ctx, http.MethodGet, "/subscription", nil, nil)
	}); err != nil {
		return fmt.Errorf("with 400 idle connections: %w", err)
	}
	left, err := connected(strangers)
	if err == nil && left > 64 {
		err = fmt.Errorf("%d of 400 idle connections are open, with 256 files", left)
	}
	return err
}

// unread requests more than it reads: the API's memory must not grow, and the
// clients are disconnected.
func unread(ctx context.Context, c *Cluster) (err error) {
	if _, err := c.db.ExecContext(ctx, `
		INSERT INTO posthorn.outbox (id, type, data)
		SELECT 'unread-' || n, 'UNREAD', convert_to('"' || repeat('a', 250000) || '"', 'UTF8') FROM generate_series(1, 400) n`); err != nil {
		return fmt.Errorf("append large events: %w", err)
	}
	before, err := c.memory("api")
	if err != nil {
		return err
	}
	api, err := url.Parse(c.API)
	if err != nil {
		return fmt.Errorf("read address of the API: %w", err)
	}
	var clients []net.Conn
	defer func() {
		for _, conn := range clients {
			_ = conn.Close() // it may be disconnected already
		}
	}()
	for range 8 {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", api.Host)
		if err != nil {
			return fmt.Errorf("connect: %w", err)
		}
		clients = append(clients, conn)
		if tcp, ok := conn.(*net.TCPConn); ok {
			err = tcp.SetReadBuffer(4 << 10)
		}
		// More than once: the kernel buffers the first megabytes.
		_, sent := conn.Write(bytes.Repeat([]byte("GET /events?type=UNREAD&limit=1000 HTTP/1.1\r\nHost: "+api.Host+"\r\n\r\n"), 40))
		if err = errors.Join(err, sent); err != nil {
			return fmt.Errorf("ask: %w", err)
		}
	}
	const spare = 64 << 20
	most := int64(0)
	err = repeat(150, func() error {
		now, err := c.memory("api")
		most = max(most, now)
		site.Pause(ctx, 100*time.Millisecond)
		return err
	})
	if err == nil && most > before+spare {
		err = fmt.Errorf("the API occupied %d bytes, %d before", most, before)
	}
	return errors.Join(err, site.Await(ctx, within, "clients that do not read are cut off", func() bool {
		n, err := connected(clients)
		return err == nil && n == 0
	}))
}

// connected returns for how many clients the server's end is open. Written data
// is still in transit after the server closes, so a client cannot tell.
func connected(clients []net.Conn) (n int, err error) {
	// Columns: sl, local_address, rem_address, st (01 is established), in hexadecimal.
	table, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		return 0, fmt.Errorf("look at connections: %w", err)
	}
	established := map[string]bool{}
	for line := range strings.Lines(string(table)) {
		if f := strings.Fields(line); len(f) > 3 && f[3] == "01" {
			_, port, _ := strings.Cut(f[2], ":")
			established[port] = true
		}
	}
	for _, conn := range clients {
		if addr, ok := conn.LocalAddr().(*net.TCPAddr); ok && established[fmt.Sprintf("%04X", addr.Port)] {
			n++
		}
	}
	return n, nil
}

// keyed creates subscriptions while the API is killed, and repeats each request
// until it is answered: each must be created once.
func keyed(ctx context.Context, c *Cluster) error {
	const subscriptions, kills = 120, 8
	killed := make(chan error, 1)
	go func() {
		killed <- repeat(kills, func() error {
			site.Pause(ctx, 300*time.Millisecond+time.Duration(c.chance.IntN(300))*time.Millisecond)
			// Sometimes the API is just starting.
			if err := c.parts["api"].Signal(syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
				return err
			}
			return nil
		})
	}()
	var wrong error
	for i := range subscriptions {
		key := "made-" + strconv.Itoa(i)
		body := map[string]any{"url": c.Sink.URL(key), "eventTypes": []string{"T.9"}} // there are no such events
		var first, again string
		err := site.Await(ctx, within, "subscription "+key+" is made", func() (done bool) {
			var err error
			first, err = c.createKeyed(ctx, key, body)
			return err == nil
		})
		if err == nil && i%10 == 0 {
			err = site.Await(ctx, within, "subscription "+key+" is answered again", func() bool {
				var err error
				again, err = c.createKeyed(ctx, key, body)
				return err == nil
			})
			if again != first {
				err = errors.Join(err, fmt.Errorf("%s made %s, and %s the second time", key, first, again))
			}
		}
		wrong = errors.Join(wrong, err)
	}
	var made, urls int
	if err := c.db.QueryRowContext(ctx, `SELECT count(*), count(DISTINCT url) FROM posthorn.subscriptions WHERE url LIKE '%/made-%'`).
		Scan(&made, &urls); err != nil {
		return fmt.Errorf("count subscriptions: %w", err)
	}
	if made != subscriptions || urls != subscriptions {
		wrong = errors.Join(wrong, fmt.Errorf("%d requests made %d subscriptions of %d URLs", subscriptions, made, urls))
	}
	return errors.Join(wrong, <-killed)
}

// createKeyed makes one request for a subscription and returns its id.
func (c *Cluster) createKeyed(ctx context.Context, key string, body any) (id string, err error) {
	payload, err := json.Marshal(body)
	if err != nil {
		return "", fmt.Errorf("encode request: %w", err)
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, c.API+"/subscription", bytes.NewReader(payload))
	if err != nil {
		return "", fmt.Errorf("make request: %w", err)
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Idempotency-Key", key)
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		return "", fmt.Errorf("create subscription: %w", err)
	}
	defer func() { _ = response.Body.Close() }() // read to its end
	var answer struct{ ID string }
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		return "", fmt.Errorf("decode answer: %w", err)
	}
	if response.StatusCode != http.StatusCreated {
		return "", fmt.Errorf("create subscription: status %d", response.StatusCode)
	}
	return answer.ID, nil
}
