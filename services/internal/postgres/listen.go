package postgres

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/lib/pq"
)

const (
	// A lost connection for notifications is reopened after a time between these:
	// polling finds the same changes meanwhile.
	minListenBackoff = 500 * time.Millisecond
	maxListenBackoff = 10 * time.Second
	// pingEvery detects a connection that died silently.
	pingEvery = 30 * time.Second
)

// Listener receives the notifications of a database channel on a dedicated
// connection, which it reopens when it is lost.
type Listener struct {
	listener *pq.Listener
	woken    chan struct{}
}

// Listen listens on a channel. It does not need the database to be up.
func Listen(databaseURL, application, channel string, logger *slog.Logger) (*Listener, error) {
	address, _, err := connection(databaseURL, application)
	if err != nil {
		return nil, err
	}
	l := &Listener{woken: make(chan struct{}, 1)}
	l.listener = pq.NewListener(address, minListenBackoff, maxListenBackoff, func(_ pq.ListenerEventType, err error) {
		if err != nil {
			logger.Debug("no connection for notifications: polling instead", "error", err)
		}
	})
	go l.pass()
	// It waits for the connection.
	go func() {
		if err := l.listener.Listen(channel); err != nil && !errors.Is(err, net.ErrClosed) {
			logger.Warn("cannot listen for notifications: polling instead", "error", err)
		}
	}()
	return l, nil
}

// pass merges any number of notifications into one value.
func (l *Listener) pass() {
	ping := time.NewTicker(pingEvery)
	defer ping.Stop()
	for {
		select {
		case _, open := <-l.listener.NotificationChannel(): // nil after a lost connection, when some may be missing
			if !open {
				return
			}
			select {
			case l.woken <- struct{}{}:
			default:
			}
		case <-ping.C:
			go func() { _ = l.listener.Ping() }() // a dead connection is reopened
		}
	}
}

// C gets a value after one or more notifications.
func (l *Listener) C() <-chan struct{} { return l.woken }

// Close ends the connection.
func (l *Listener) Close() error {
	if err := l.listener.Close(); err != nil {
		return fmt.Errorf("stop listening: %w", err)
	}
	return nil
}
