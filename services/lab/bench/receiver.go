package bench

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
	"sync"
	"time"
)

const (
	// maxBody is the longest request that the receiver reads.
	maxBody = 1 << 20
	// hanging is the prefix of the names of subscribers that never answer.
	hanging = "hang"
	// slow is the prefix of the names of subscribers that take a time to answer.
	slow = "slow"
)

// Receiver accepts deliveries: POST /NAME is one for the subscriber NAME. It
// parses no more of HTTP than it needs, because it shares the machine with the
// measured system. A subscriber whose name begins with "hang" never answers,
// and one with a name such as "slow100ms-7" after that time.
type Receiver struct {
	deliveries, control net.Listener

	mu       sync.RWMutex
	expected int
	counters map[string]*counter
}

// NewReceiver listens for deliveries and for its control.
func NewReceiver(ctx context.Context) (*Receiver, error) {
	r := &Receiver{counters: map[string]*counter{}}
	var err error
	if r.deliveries, err = new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0"); err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	if r.control, err = new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0"); err != nil {
		return nil, errors.Join(fmt.Errorf("listen: %w", err), r.deliveries.Close())
	}
	return r, nil
}

// Addresses returns the addresses for deliveries and for control.
func (r *Receiver) Addresses() (deliveries, control string) {
	return r.deliveries.Addr().String(), r.control.Addr().String()
}

// Run serves until ctx ends.
func (r *Receiver) Run(ctx context.Context) error {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /expect/{n}", func(w http.ResponseWriter, q *http.Request) {
		n, err := strconv.Atoi(q.PathValue("n"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		r.mu.Lock()
		r.expected, r.counters = n, map[string]*counter{}
		r.mu.Unlock()
	})
	mux.HandleFunc("GET /count", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprintln(w, r.arrived())
	})
	mux.HandleFunc("GET /tally", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(r.tally()) // an error means that the client is gone
	})
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	stop := context.AfterFunc(ctx, func() { _ = errors.Join(server.Close(), r.deliveries.Close()) })
	defer stop()
	go func() { _ = server.Serve(r.control) }() // ends with ctx
	for {
		conn, err := r.deliveries.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("accept: %w", err)
		}
		go r.serve(conn)
	}
}

func (r *Receiver) counter(name string) *counter {
	r.mu.RLock()
	c := r.counters[name]
	r.mu.RUnlock()
	if c != nil {
		return c
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if c = r.counters[name]; c == nil {
		c = &counter{expected: r.expected}
		r.counters[name] = c
	}
	return c
}

func (r *Receiver) arrived() (n int) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	for _, c := range r.counters {
		c.mu.Lock()
		n += c.tally.Arrived
		c.mu.Unlock()
	}
	return n
}

// tally returns the deliveries of all subscribers together.
func (r *Receiver) tally() *Tally {
	r.mu.RLock()
	defer r.mu.RUnlock()
	sum := &Tally{}
	for _, c := range r.counters {
		c.mu.Lock()
		sum.merge(&c.tally)
		c.mu.Unlock()
	}
	return sum
}

// serve answers the requests of a connection until it is closed.
func (r *Receiver) serve(conn net.Conn) {
	defer func() { _ = conn.Close() }() // nothing is left to write
	in := bufio.NewReaderSize(conn, 4<<10)
	var body []byte
	for {
		name, length, err := readHead(in)
		if err != nil {
			return // closed by the peer, or invalid
		}
		if cap(body) < length {
			body = make([]byte, length)
		}
		body = body[:length]
		if _, err := io.ReadFull(in, body); err != nil {
			return
		}
		if strings.HasPrefix(name, hanging) {
			_, _ = in.ReadByte() // until the peer closes
			return
		}
		number, start, ok := readBody(body)
		r.counter(name).add(number, start, time.Now(), ok)
		time.Sleep(delay(name))
		if _, err := io.WriteString(conn, "HTTP/1.1 204 No Content\r\n\r\n"); err != nil {
			return
		}
	}
}

// slowName is the name of the n-th subscriber that answers after d.
func slowName(d time.Duration, n int) string { return fmt.Sprintf("%s%s-%d", slow, d, n) }

// delay is how long a subscriber takes to answer, by its name.
func delay(name string) time.Duration {
	rest, ok := strings.CutPrefix(name, slow)
	if !ok {
		return 0
	}
	text, _, _ := strings.Cut(rest, "-")
	d, err := time.ParseDuration(text)
	if err != nil {
		return 0
	}
	return d
}

var errHead = errors.New("request that cannot be read")

// readHead reads a request up to its body.
func readHead(in *bufio.Reader) (path string, length int, err error) {
	line, err := in.ReadSlice('\n')
	if err != nil {
		return "", 0, err
	}
	method, rest, _ := bytes.Cut(line, []byte(" /"))
	name, _, ok := bytes.Cut(rest, []byte(" "))
	if !ok || string(method) != http.MethodPost {
		return "", 0, errHead
	}
	path, length = string(name), -1
	for {
		line, err := in.ReadSlice('\n')
		if err != nil {
			return "", 0, err
		}
		if line = bytes.TrimSpace(line); len(line) == 0 {
			break
		}
		const field = "content-length:"
		if len(line) > len(field) && bytes.EqualFold(line[:len(field)], []byte(field)) {
			if length, err = strconv.Atoi(string(bytes.TrimSpace(line[len(field):]))); err != nil {
				return "", 0, errHead
			}
		}
	}
	if length < 0 || length > maxBody {
		return "", 0, errHead
	}
	return path, length, nil
}
