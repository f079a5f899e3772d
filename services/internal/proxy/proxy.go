// Package proxy is a TCP proxy for tests whose connections can fail: cut, silent,
// slow or narrow.
//
// A Proxy listens on its own address and forwards data in both directions, byte
// for byte, until a fault is set, which applies to open and new connections. It
// promises to leave nothing behind after Close. It fails only if it cannot
// listen.
package proxy

import (
	"context"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// Proxy is safe for concurrent use.
type Proxy struct {
	target, addr string
	wg           sync.WaitGroup

	mu       sync.Mutex
	listener net.Listener // nil while it is cut
	conns    map[net.Conn]struct{}
	fault    fault
	changed  chan struct{} // closed when fault changes
}

// fault is the effect on data in transit, in each direction.
type fault struct {
	dead  bool
	delay time.Duration
	rate  int // bytes a second; 0 is no limit
}

// New returns a proxy to a server's host and port.
func New(ctx context.Context, target string) (*Proxy, error) {
	p := &Proxy{target: target, addr: "127.0.0.1:0", conns: map[net.Conn]struct{}{}, changed: make(chan struct{})}
	return p, p.Mend(ctx)
}

// Addr is the host and port to connect to. It stays the same.
func (p *Proxy) Addr() string { return p.addr }

// Cut closes all connections, and refuses new ones until Mend.
func (p *Proxy) Cut() {
	p.mu.Lock()
	if p.listener != nil {
		_ = p.listener.Close() // it is not used again
		p.listener = nil
	}
	p.disconnect()
	p.mu.Unlock()
	p.wg.Wait()
}

// disconnect closes all connections. The caller holds the lock.
func (p *Proxy) disconnect() {
	for c := range p.conns {
		_ = c.Close() // its copying goroutine removes it
	}
	clear(p.conns)
}

// Mend lets connections through again.
func (p *Proxy) Mend(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.listener != nil {
		return nil
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", p.addr)
	if err != nil {
		return fmt.Errorf("open proxy: %w", err)
	}
	p.listener, p.addr = listener, listener.Addr().String()
	p.wg.Go(func() { p.accept(listener) }) //nolint:contextcheck // until Cut
	return nil
}

// Close cuts the proxy permanently.
func (p *Proxy) Close() { p.Cut() }

// Silence drops all data while the connections stay open. Heal ends it and
// closes them, since the dropped data is missing.
func (p *Proxy) Silence() { p.set(fault{dead: true}) }

// Delay delays data in each direction.
func (p *Proxy) Delay(d time.Duration) { p.set(fault{delay: d}) }

// Limit limits the bytes per second, in each direction and connection.
func (p *Proxy) Limit(bytesPerSecond int) { p.set(fault{rate: bytesPerSecond}) }

// Heal ends Silence, Delay and Limit.
func (p *Proxy) Heal() {
	if p.now().dead {
		p.mu.Lock()
		p.disconnect()
		p.mu.Unlock()
	}
	p.set(fault{})
}

func (p *Proxy) set(f fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fault = f
	close(p.changed)
	p.changed = make(chan struct{})
}

func (p *Proxy) now() fault {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.fault
}

func (p *Proxy) accept(listener net.Listener) {
	for {
		client, err := listener.Accept()
		if err != nil {
			return // closed
		}
		p.wg.Go(func() { p.connect(client) })
	}
}

// connect joins a client with the server until one of them ends.
func (p *Proxy) connect(client net.Conn) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	server, err := new(net.Dialer).DialContext(ctx, "tcp", p.target)
	if err != nil {
		_ = client.Close() // the client learns of it
		return
	}
	both := []net.Conn{client, server}
	p.mu.Lock()
	through := p.listener != nil
	if through {
		for _, c := range both {
			p.conns[c] = struct{}{}
		}
	}
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		for _, c := range both {
			_ = c.Close() // to end the other direction too
			delete(p.conns, c)
		}
	}()
	if !through {
		return
	}
	var pair sync.WaitGroup
	pair.Go(func() { p.pass(ctx, cancel, server, client) })
	pair.Go(func() { p.pass(ctx, cancel, client, server) })
	<-ctx.Done()
	for _, c := range both {
		_ = c.Close()
	}
	pair.Wait()
}

// chunk is data in transit.
type chunk struct {
	data []byte
	read time.Time
}

// pass forwards one direction and calls end at its end. Delayed data waits in a
// channel, so that a delay does not limit the rate.
func (p *Proxy) pass(ctx context.Context, end func(), to io.Writer, from io.Reader) {
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
		if !p.hold(ctx, c) {
			continue
		}
		if _, err := to.Write(c.data); err != nil {
			return
		}
	}
}

// hold waits until a chunk may continue, and reports whether it does.
func (p *Proxy) hold(ctx context.Context, c chunk) bool {
	started := time.Now()
	for {
		p.mu.Lock()
		f, changed := p.fault, p.changed
		p.mu.Unlock()
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
