// Package line is a TCP connection to a server, for tests, that can be broken:
// cut, dead, slow or narrow.
//
// A Line listens on an address of its own and passes on whatever comes there, in
// both directions and byte for byte, until it is told to do otherwise; that
// holds for the connections that are open as well as for new ones. It promises
// that after Close nothing of it is left. It fails only where it cannot listen.
package line

import (
	"context"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// Line is safe for concurrent use.
type Line struct {
	target, addr string
	wg           sync.WaitGroup

	mu       sync.Mutex
	listener net.Listener // nil while the line is cut
	conns    map[net.Conn]struct{}
	fault    fault
	changed  chan struct{} // closed when fault changes
}

// fault is what happens to data on its way, in each direction.
type fault struct {
	dead  bool
	delay time.Duration
	rate  int // bytes a second; 0 is no limit
}

// New returns a line to a server's host and port.
func New(ctx context.Context, target string) (*Line, error) {
	l := &Line{target: target, addr: "127.0.0.1:0", conns: map[net.Conn]struct{}{}, changed: make(chan struct{})}
	return l, l.Mend(ctx)
}

// Addr is the host and port to connect to. It stays the same.
func (l *Line) Addr() string { return l.addr }

// Cut closes all connections, and refuses new ones until Mend.
func (l *Line) Cut() {
	l.mu.Lock()
	if l.listener != nil {
		_ = l.listener.Close() // it is given up
		l.listener = nil
	}
	l.disconnect()
	l.mu.Unlock()
	l.wg.Wait()
}

// disconnect closes all connections. The lock is held.
func (l *Line) disconnect() {
	for c := range l.conns {
		_ = c.Close() // whoever copies from it takes it away
	}
	clear(l.conns)
}

// Mend lets connections through again.
func (l *Line) Mend(ctx context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.listener != nil {
		return nil
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", l.addr)
	if err != nil {
		return fmt.Errorf("open line: %w", err)
	}
	l.listener, l.addr = listener, listener.Addr().String()
	l.wg.Go(func() { l.accept(listener) }) //nolint:contextcheck // until Cut
	return nil
}

// Close cuts the line for good.
func (l *Line) Close() { l.Cut() }

// Silence swallows all data while the connections stay open. Heal ends that, and
// them: what was swallowed is missing.
func (l *Line) Silence() { l.set(fault{dead: true}) }

// Delay has data take longer, each way.
func (l *Line) Delay(d time.Duration) { l.set(fault{delay: d}) }

// Limit lets through so many bytes a second, each way and connection.
func (l *Line) Limit(bytesPerSecond int) { l.set(fault{rate: bytesPerSecond}) }

// Heal ends Silence, Delay and Limit.
func (l *Line) Heal() {
	if l.now().dead {
		l.mu.Lock()
		l.disconnect()
		l.mu.Unlock()
	}
	l.set(fault{})
}

func (l *Line) set(f fault) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fault = f
	close(l.changed)
	l.changed = make(chan struct{})
}

func (l *Line) now() fault {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.fault
}

func (l *Line) accept(listener net.Listener) {
	for {
		client, err := listener.Accept()
		if err != nil {
			return // closed
		}
		l.wg.Go(func() { l.connect(client) })
	}
}

// connect joins a client with the server until one of them ends.
func (l *Line) connect(client net.Conn) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	server, err := new(net.Dialer).DialContext(ctx, "tcp", l.target)
	if err != nil {
		_ = client.Close() // it is told so
		return
	}
	both := []net.Conn{client, server}
	l.mu.Lock()
	through := l.listener != nil
	if through {
		for _, c := range both {
			l.conns[c] = struct{}{}
		}
	}
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		for _, c := range both {
			_ = c.Close() // to end the other direction too
			delete(l.conns, c)
		}
	}()
	if !through {
		return
	}
	var pair sync.WaitGroup
	pair.Go(func() { l.pass(ctx, cancel, server, client) })
	pair.Go(func() { l.pass(ctx, cancel, client, server) })
	<-ctx.Done()
	for _, c := range both {
		_ = c.Close()
	}
	pair.Wait()
}

// chunk is data on its way.
type chunk struct {
	data []byte
	read time.Time
}

// pass passes on one direction and calls end when that has ended. Data that are
// delayed wait in a channel, so that a delay does not narrow the line.
func (l *Line) pass(ctx context.Context, end func(), to io.Writer, from io.Reader) {
	const (
		chunkBytes = 16 << 10
		underway   = 1024 // chunks
	)
	way := make(chan chunk, underway)
	var reader sync.WaitGroup
	defer reader.Wait()
	defer end()
	reader.Go(func() {
		defer close(way)
		for {
			buffer := make([]byte, chunkBytes)
			n, err := from.Read(buffer)
			if n > 0 {
				select {
				case way <- chunk{buffer[:n], time.Now()}:
				case <-ctx.Done():
					return
				}
			}
			if err != nil {
				return
			}
		}
	})
	for c := range way {
		if !l.hold(ctx, c) {
			continue
		}
		if _, err := to.Write(c.data); err != nil {
			return
		}
	}
}

// hold waits until a chunk may go on, and reports whether it does.
func (l *Line) hold(ctx context.Context, c chunk) bool {
	started := time.Now()
	for {
		l.mu.Lock()
		f, changed := l.fault, l.changed
		l.mu.Unlock()
		if f.dead {
			return false
		}
		due := c.read.Add(f.delay)
		if f.rate > 0 {
			due = started.Add(time.Duration(len(c.data)) * time.Second / time.Duration(f.rate))
		}
		wait := time.Until(due)
		if wait <= 0 {
			return true
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-changed:
			timer.Stop()
		case <-ctx.Done():
			timer.Stop()
			return false
		}
	}
}
