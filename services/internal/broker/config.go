package broker

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// The queue types of Config.QueueType.
const (
	Classic = "classic"
	Quorum  = "quorum"
)

// Config is shared by everything in this package. Only URL is required.
type Config struct {
	// URL of the broker: amqp://user:password@host:port/vhost, or amqps.
	URL string
	// Namespace prefixes the name of every exchange and queue.
	Namespace string
	// QueueType is Classic (the default) or Quorum, for subscriptions' queues. It cannot change
	// once they exist.
	QueueType string
	// Persistent makes the broker sync every message to its disk. Otherwise only messages that
	// request it are synced, and others in classic queues are lost when the broker restarts. Messages
	// are always persistent with quorum queues, which sync them anyway.
	Persistent bool
	// ConnectionName is shown in RabbitMQ's UI. "posthorn" unless set.
	ConnectionName string
	// Group is the group of consumers that Subscriber.Subscribe joins: each group gets every
	// message once.
	Group string
	// Prefetch is how many messages Subscriber.Subscribe has in flight. 64 unless set.
	Prefetch int
	// PublishTimeout bounds each PublishAll and each operation of Topology. 10 s unless set.
	PublishTimeout time.Duration
	// DrainTimeout bounds how long a stop waits for messages that handlers hold. 20 s unless set.
	DrainTimeout time.Duration
	// RequeuePause is how long Consumers hold a message whose handler failed before they give it
	// back. 500 ms unless set.
	RequeuePause time.Duration
	// DialTimeout bounds connecting, with the handshake. 10 s unless set.
	DialTimeout time.Duration
	// MaxBackoff is the longest pause between two attempts to connect. 2 s unless set.
	MaxBackoff time.Duration
	// Heartbeat is the interval of keep-alive frames; a connection that is silent for two of them
	// is closed. 10 s unless set.
	Heartbeat time.Duration
	// RetryRungs are the delays for which retry queues exist. DefaultRetryRungs unless set.
	RetryRungs []time.Duration
	// Logger gets one line per decision. It discards unless set.
	Logger *slog.Logger
}

// DefaultRetryRungs returns the delays of the retry queues unless Config sets others.
func DefaultRetryRungs() []time.Duration {
	return []time.Duration{
		time.Second, 5 * time.Second, 30 * time.Second, 2 * time.Minute, 15 * time.Minute, time.Hour,
	}
}

// Validate reports all errors in the configuration.
func (c Config) Validate() error {
	var errs []error
	if _, err := amqp.ParseURI(c.URL); err != nil {
		// The library's error may quote the URL, and with it the password.
		errs = append(errs, errors.New("invalid URL: want one such as amqp://user:password@host:port/vhost"))
	}
	switch c.QueueType {
	case "", Classic, Quorum:
	default:
		errs = append(errs, fmt.Errorf("invalid queue type %q: want %q or %q", c.QueueType, Classic, Quorum))
	}
	// The rest of a name (kind, subscription id) needs room.
	if len(c.Namespace) > maxName/2 {
		errs = append(errs, fmt.Errorf("invalid namespace: want at most %d bytes", maxName/2))
	}
	if c.Prefetch < 0 || c.Prefetch > MaxPrefetch {
		errs = append(errs, fmt.Errorf("invalid prefetch %d: want 0 to %d", c.Prefetch, MaxPrefetch))
	}
	for name, d := range map[string]time.Duration{
		"publish timeout": c.PublishTimeout, "drain timeout": c.DrainTimeout, "requeue pause": c.RequeuePause,
		"dial timeout": c.DialTimeout, "heartbeat": c.Heartbeat, "max backoff": c.MaxBackoff,
	} {
		if d < 0 {
			errs = append(errs, fmt.Errorf("invalid %s %s: want no negative duration", name, d))
		}
	}
	for _, d := range c.RetryRungs {
		if d < time.Millisecond || d%time.Millisecond != 0 {
			errs = append(errs, fmt.Errorf("invalid retry rung %s: want whole milliseconds, at least 1ms", d))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("broker configuration: %w", err)
	}
	return nil
}

// Names returns the names of this configuration's exchanges and queues.
func (c Config) Names() Names { return Names{Namespace: c.Namespace} }

// RungFor returns the longest rung that is not longer than d, or the shortest rung.
func (c Config) RungFor(d time.Duration) time.Duration {
	rungs := c.RetryRungs
	if len(rungs) == 0 {
		rungs = DefaultRetryRungs()
	}
	best := slices.Min(rungs)
	for _, r := range rungs {
		if r <= d && r > best {
			best = r
		}
	}
	return best
}

// NextHop returns the rung of the retry queue that a message waits in next, and how long it must
// wait after that. Less than half of the shortest rung is not worth another hop, so a wait may end
// up to half a second early or late; one of whole seconds, such as a Retry-After, is never early.
func (c Config) NextHop(wait time.Duration) (rung, left time.Duration) {
	rung = c.RungFor(wait)
	left = max(0, wait-rung)
	if left < c.RungFor(0)/2 {
		left = 0
	}
	return rung, left
}

// filled returns the configuration with its defaults, if it is valid.
func (c Config) filled() (Config, error) {
	if err := c.Validate(); err != nil {
		return Config{}, err
	}
	c.QueueType = cmp.Or(c.QueueType, Classic)
	c.Persistent = c.Persistent || c.QueueType == Quorum
	c.ConnectionName = cmp.Or(c.ConnectionName, "posthorn")
	c.Group = cmp.Or(c.Group, "default")
	c.Prefetch = cmp.Or(c.Prefetch, 64)
	c.PublishTimeout = cmp.Or(c.PublishTimeout, 10*time.Second)
	c.DrainTimeout = cmp.Or(c.DrainTimeout, 20*time.Second)
	c.RequeuePause = cmp.Or(c.RequeuePause, 500*time.Millisecond)
	c.DialTimeout = cmp.Or(c.DialTimeout, 10*time.Second)
	c.MaxBackoff = cmp.Or(c.MaxBackoff, 2*time.Second)
	c.Heartbeat = cmp.Or(c.Heartbeat, 10*time.Second)
	if len(c.RetryRungs) == 0 {
		c.RetryRungs = DefaultRetryRungs()
	}
	c.Logger = cmp.Or(c.Logger, slog.New(slog.DiscardHandler))
	return c, nil
}
