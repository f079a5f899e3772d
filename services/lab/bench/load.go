package bench

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// Load is a series of requests over a number of connections.
type Load struct {
	Addr        string
	Path        string // of POST requests
	Connections int
	Requests    int
	// For is how long new requests are begun; 0 means no limit.
	For time.Duration
	// Rate is how many requests a second are begun, regardless of earlier ones
	// (an open loop); 0 begins one on each connection as soon as its last one
	// is answered (a closed loop).
	Rate float64
	// Body appends a request's body. start is when the request is due.
	Body func(dst []byte, request int, start time.Time) []byte
	// PathOf is the path of a request if they differ.
	PathOf func(request int, start time.Time) string
}

// Outcome is the result of a load.
type Outcome struct {
	// Begun is when the first request was made, FirstAnswer when the first was answered, Ended when
	// the last was.
	Begun, FirstAnswer, Ended time.Time
	// Latency runs from when a request was due to its response.
	Latency Histogram
}

// Rate is the number of responses per second.
func (o *Outcome) Rate() float64 { return float64(o.Latency.Total) / o.Ended.Sub(o.Begun).Seconds() }

// Run makes the requests. All have to be answered with 2xx.
func (l Load) Run(ctx context.Context) (*Outcome, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	conns := make([]net.Conn, l.Connections)
	defer func() {
		for _, conn := range conns {
			if conn != nil {
				_ = conn.Close() // everything is answered
			}
		}
	}()
	for i := range conns {
		var err error
		if conns[i], err = new(net.Dialer).DialContext(ctx, "tcp", l.Addr); err != nil {
			return nil, fmt.Errorf("connect: %w", err)
		}
	}
	var (
		wg      sync.WaitGroup
		next    atomic.Int64
		first   atomic.Int64
		results = make([]Histogram, l.Connections)
		begun   = time.Now()
	)
	for i, conn := range conns {
		wg.Go(func() {
			defer context.AfterFunc(ctx, func() { _ = conn.Close() })() // ends a blocked read
			w := worker{load: l, conn: conn, in: bufio.NewReader(conn), begun: begun, next: &next, first: &first, latency: &results[i]}
			if err := w.run(ctx); err != nil {
				cancel(err)
			}
		})
	}
	wg.Wait()
	if err := context.Cause(ctx); err != nil {
		return nil, fmt.Errorf("make requests: %w", err)
	}
	out := &Outcome{Begun: begun, FirstAnswer: time.Unix(0, first.Load()), Ended: time.Now()}
	for i := range results {
		out.Latency.Merge(&results[i])
	}
	return out, nil
}

// worker makes requests on one connection.
type worker struct {
	load        Load
	conn        net.Conn
	in          *bufio.Reader
	begun       time.Time
	next, first *atomic.Int64
	latency     *Histogram

	body, request []byte
}

func (w *worker) run(ctx context.Context) error {
	for ctx.Err() == nil {
		i := int(w.next.Add(1)) - 1
		if i >= w.load.Requests || w.load.For > 0 && time.Since(w.begun) > w.load.For {
			return nil
		}
		start := time.Now()
		if w.load.Rate > 0 {
			start = w.begun.Add(time.Duration(float64(i) / w.load.Rate * float64(time.Second)))
			if err := pauseUntil(ctx, start); err != nil {
				return err
			}
		}
		if err := w.send(i, start); err != nil {
			return err
		}
		now := time.Now()
		w.first.CompareAndSwap(0, now.UnixNano())
		w.latency.Record(now.Sub(start))
	}
	return ctx.Err()
}

func pauseUntil(ctx context.Context, at time.Time) error {
	wait := time.Until(at)
	if wait <= 0 {
		return nil
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (w *worker) send(i int, start time.Time) error {
	path := w.load.Path
	if w.load.PathOf != nil {
		path = w.load.PathOf(i, start)
	}
	w.body = w.body[:0]
	if w.load.Body != nil {
		w.body = w.load.Body(w.body, i, start)
	}
	r := append(w.request[:0], "POST "...)
	r = append(r, path...)
	r = append(r, " HTTP/1.1\r\nHost: "...)
	r = append(r, w.load.Addr...)
	r = append(r, "\r\nContent-Type: application/json\r\nContent-Length: "...)
	r = strconv.AppendInt(r, int64(len(w.body)), 10)
	r = append(r, "\r\n\r\n"...)
	w.request = append(r, w.body...)
	if _, err := w.conn.Write(w.request); err != nil {
		return fmt.Errorf("send request: %w", err)
	}
	return readAnswer(w.in)
}

var errAnswer = errors.New("answer that was not expected")

// readAnswer reads a response as cheaply as possible: the generator shares the
// machine with the measured system.
func readAnswer(in *bufio.Reader) error {
	line, err := in.ReadSlice('\n')
	if err != nil {
		return fmt.Errorf("read answer: %w", err)
	}
	if !bytes.HasPrefix(line, []byte("HTTP/1.1 2")) {
		status := string(bytes.TrimSpace(line))
		rest, _ := in.Peek(in.Buffered()) // peeking at buffered bytes cannot fail
		_, problem, _ := bytes.Cut(rest, []byte("\r\n\r\n"))
		return fmt.Errorf("%w: %s %s", errAnswer, status, bytes.TrimSpace(problem))
	}
	length, chunked := 0, false
	for {
		line, err := in.ReadSlice('\n')
		if err != nil {
			return fmt.Errorf("read answer: %w", err)
		}
		if line = bytes.TrimSpace(line); len(line) == 0 {
			break
		}
		if value, ok := bytes.CutPrefix(line, []byte("Content-Length: ")); ok {
			if length, err = strconv.Atoi(string(value)); err != nil {
				return fmt.Errorf("read answer: %w", err)
			}
		}
		chunked = chunked || bytes.Equal(line, []byte("Transfer-Encoding: chunked"))
	}
	if !chunked {
		if _, err := in.Discard(length); err != nil {
			return fmt.Errorf("read answer: %w", err)
		}
		return nil
	}
	return discardChunks(in)
}

func discardChunks(in *bufio.Reader) error {
	for {
		line, err := in.ReadSlice('\n')
		if err != nil {
			return fmt.Errorf("read answer: %w", err)
		}
		length, err := strconv.ParseInt(string(bytes.TrimSpace(line)), 16, 32)
		if err != nil {
			return fmt.Errorf("read answer: %w", err)
		}
		if _, err := io.CopyN(io.Discard, in, length+2); err != nil {
			return fmt.Errorf("read answer: %w", err)
		}
		if length == 0 {
			return nil
		}
	}
}

// single is a load of one event per request.
func single(addr string, connections, events int, rate float64) Load {
	return Load{
		Addr: addr, Path: "/events", Connections: connections, Requests: events, Rate: rate,
		Body: func(dst []byte, i int, start time.Time) []byte { return appendEvent(dst, eventType, i, start) },
	}
}

// batchSize is the number of events in a batch.
const batchSize = 100

// batched is a load of several events per request.
func batched(addr string, connections, events, size int) Load {
	return Load{
		Addr: addr, Path: "/events", Connections: connections, Requests: (events + size - 1) / size,
		Body: func(dst []byte, i int, start time.Time) []byte {
			dst = append(dst, '[')
			for n := i * size; n < min((i+1)*size, events); n++ {
				if n > i*size {
					dst = append(dst, ',')
				}
				dst = appendEvent(dst, eventType, n, start)
			}
			return append(dst, ']')
		},
	}
}

// eventType is the type that all subscriptions of a scenario want.
const eventType = "bench.order.paid"
