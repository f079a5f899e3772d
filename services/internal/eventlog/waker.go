package eventlog

import (
	"context"
	"database/sql"
	"sync"
	"time"

	"posthorn/outbox"
)

const (
	// wakeEvery is how often the relay is woken at most. Under load it needs no waking: it looks again
	// when it is done with a window.
	wakeEvery = 2 * time.Millisecond
	// wakeWithin bounds one notification, after which the relay looks by itself many times over.
	wakeWithin = 2 * time.Second
)

// Waker wakes the relay after appends. Calls while it is at it count as one.
type Waker struct {
	db *sql.DB
	// Near wakes the relay of this process and reports whether that is the active one: no other
	// needs to be notified then. May be nil; set it before the first Wake.
	Near func() bool

	mu      sync.Mutex
	running bool
	again   bool
}

// NewWaker returns a Waker that uses a connection of the pool at a time.
func NewWaker(db *sql.DB) *Waker { return &Waker{db: db} }

// Wake has the relay woken, and does not wait for it.
func (w *Waker) Wake() {
	if w.Near != nil && w.Near() {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.running {
		w.again = true
		return
	}
	w.running = true
	go w.run()
}

func (w *Waker) run() {
	for {
		ctx, cancel := context.WithTimeout(context.Background(), wakeWithin)
		_ = outbox.Wake(ctx, w.db) // the relay looks by itself too
		cancel()
		time.Sleep(wakeEvery)
		w.mu.Lock()
		if !w.again {
			w.running = false
			w.mu.Unlock()
			return
		}
		w.again = false
		w.mu.Unlock()
	}
}
