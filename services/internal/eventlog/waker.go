package eventlog

import (
	"context"
	"database/sql"
	"sync"
	"time"

	"posthorn/outbox"
)

const (
	// wakeEvery is how often the relay is woken at most. Under load it needs no wake-up: it looks for
	// records again after each window.
	wakeEvery = 2 * time.Millisecond
	// wakeWithin bounds one notification. In that time the relay polls many times by itself.
	wakeWithin = 2 * time.Second
)

// Waker wakes the relay after appends. Calls during a wake-up count as one.
type Waker struct {
	db *sql.DB
	// Near wakes the relay of this process and reports whether it is the active one: then no other
	// needs a notification. May be nil; set it before the first Wake.
	Near func() bool

	mu      sync.Mutex
	running bool
	again   bool
}

// NewWaker returns a Waker that uses at most one connection of the pool at a time.
func NewWaker(db *sql.DB) *Waker { return &Waker{db: db} }

// Wake wakes the relay without waiting for it.
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
		_ = outbox.Wake(ctx, w.db) // the relay also polls
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
