package process

import (
	"container/list"
	"context"
	"net"
	"net/http"
	"sync"
)

// crowd bounds the open connections of a listener: at the limit, it closes the
// connection that has been idle the longest to accept another. Clients that
// hold idle connections take nothing from active ones, and the remaining files
// are left to deliveries.
type crowd struct {
	net.Listener
	limit int

	mu    sync.Mutex
	room  *sync.Cond
	count int
	// waiting are the connections on which no request is being served, the
	// longest first: new ones, idle ones, and those that send a request slowly.
	waiting *list.List
	members map[net.Conn]*member
	closed  bool
}

type member struct {
	conn net.Conn
	// place is the member's element in the waiting list, nil while it is served.
	place *list.Element
}

type memberKey struct{}

func newCrowd(l net.Listener, limit int) *crowd {
	c := &crowd{Listener: l, limit: limit, waiting: list.New(), members: map[net.Conn]*member{}}
	c.room = sync.NewCond(&c.mu)
	return c
}

// Accept waits while all connections are served.
func (c *crowd) Accept() (net.Conn, error) {
	c.mu.Lock()
	for !c.closed && c.count >= c.limit && c.waiting.Len() == 0 {
		c.room.Wait()
	}
	c.mu.Unlock()
	conn, err := c.Listener.Accept()
	if err != nil {
		return nil, err //nolint:wrapcheck // net/http inspects it
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.count >= c.limit {
		if oldest := c.waiting.Front(); oldest != nil {
			if m, ok := oldest.Value.(*member); ok {
				c.leave(m)
				_ = m.conn.Close()
			}
		}
	}
	m := &member{conn: conn}
	m.place = c.waiting.PushBack(m)
	c.members[conn] = m
	c.count++
	return conn, nil
}

// Close also ends an Accept that waits for a free slot.
func (c *crowd) Close() error {
	c.mu.Lock()
	c.closed = true
	c.room.Broadcast()
	c.mu.Unlock()
	return c.Listener.Close() //nolint:wrapcheck // it is the listener's
}

// context is http.Server's ConnContext.
func (c *crowd) context(ctx context.Context, conn net.Conn) context.Context {
	c.mu.Lock()
	defer c.mu.Unlock()
	return context.WithValue(ctx, memberKey{}, c.members[conn])
}

// state is http.Server's ConnState.
func (c *crowd) state(conn net.Conn, state http.ConnState) {
	switch state {
	case http.StateIdle, http.StateClosed, http.StateHijacked:
	default:
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	m := c.members[conn]
	switch {
	case m == nil: // it was closed to make room
	case state != http.StateIdle:
		c.leave(m)
	case m.place == nil:
		m.place = c.waiting.PushBack(m)
		c.room.Broadcast()
	}
}

// leave removes a member; the caller holds c.mu.
func (c *crowd) leave(m *member) {
	if m.place != nil {
		c.waiting.Remove(m.place)
		m.place = nil
	}
	delete(c.members, m.conn)
	c.count--
	c.room.Broadcast()
}

// serve protects the connection of a request while it is served.
func (c *crowd) serve(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if m, ok := r.Context().Value(memberKey{}).(*member); ok && m != nil {
			c.mu.Lock()
			if m.place != nil && c.members[m.conn] == m {
				c.waiting.Remove(m.place)
				m.place = nil
			}
			c.mu.Unlock()
		}
		next.ServeHTTP(w, r)
	})
}
