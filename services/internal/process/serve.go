package process

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"syscall"
	"time"
)

// drainRequests is how long requests in flight may take when stopping.
const drainRequests = 20 * time.Second

// writeTimeout is how long a response may take, including reading the request.
// A handler that needs longer sets its own deadline.
const writeTimeout = time.Minute

// ErrPortTaken is returned by Listen when another process has the port.
var ErrPortTaken = errors.New("port is taken")

// Listen listens on a TCP address.
func Listen(ctx context.Context, addr string) (net.Listener, error) {
	if err := CheckAddr(addr); err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	if errors.Is(err, syscall.EADDRINUSE) {
		_, port, _ := net.SplitHostPort(addr) // CheckAddr has parsed it
		return nil, fmt.Errorf("listen on %s: %w; ss -ltnp 'sport = :%s' shows the process", addr, ErrPortTaken, port)
	}
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", addr, err)
	}
	return l, nil
}

// The parts of Serve: the share of the process's open files that a listener may
// use for connections.
const (
	ForMany = 4  // a quarter, for an API
	ForFew  = 16 // for metrics and the like
)

// leastConnections are accepted however low the file limit.
const leastConnections = 8

// capacity is how many connections a listener may have open at once.
func capacity(part int) int {
	files, known := FileLimit()
	if !known || files > 1<<30 {
		files = 1 << 30
	}
	return max(leastConnections, int(files)/part)
}

// Serve serves HTTP on a listener until ctx ends and the requests in flight are
// answered. Its connections may use a share of the files that the process may
// open; beyond it, those idle the longest are closed.
func Serve(l net.Listener, part int, handler http.Handler) func(ctx context.Context) error {
	return serve(newCrowd(l, capacity(part)), handler)
}

func serve(c *crowd, handler http.Handler) func(ctx context.Context) error {
	return func(ctx context.Context) error {
		server := &http.Server{
			Handler:           c.serve(handler),
			ConnContext:       c.context,
			ConnState:         c.state,
			ReadHeaderTimeout: 10 * time.Second,
			ReadTimeout:       30 * time.Second,
			WriteTimeout:      writeTimeout,
			IdleTimeout:       2 * time.Minute,
			MaxHeaderBytes:    64 << 10,
		}
		served := make(chan error, 1)
		go func() { served <- server.Serve(c) }()
		select {
		case err := <-served:
			return fmt.Errorf("serve HTTP: %w", err)
		case <-ctx.Done():
		}
		drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainRequests)
		defer cancel()
		if err := server.Shutdown(drain); err != nil {
			return errors.Join(fmt.Errorf("answer the last requests: %w", err), server.Close())
		}
		return nil
	}
}
