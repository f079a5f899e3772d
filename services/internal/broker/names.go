package broker

import (
	"fmt"
	"time"

	"posthorn/events"
)

// maxName is AMQP's limit for the length of names and routing keys, in bytes.
const maxName = 255

// Names are the names of exchanges and queues. The namespace prefixes each, so that installations
// and tests can share a broker.
type Names struct{ Namespace string }

// OwnExchange reports whether an account has its own exchange for events, and
// does not use the one without a suffix.
func OwnExchange(account string) bool {
	return account != "" && account != events.DefaultAccount
}

// Events is the topic exchange for an account's events; the routing key is the event's type.
func (n Names) Events(account string) string {
	if !OwnExchange(account) {
		return n.Namespace + "events"
	}
	return n.Namespace + "events." + account
}

// Deliver is the direct exchange that routes to each subscription's queue; the routing key is the
// subscription's id.
func (n Names) Deliver() string { return n.Namespace + "deliver" }

// DeliverQueue is the queue of deliveries of a subscription.
func (n Names) DeliverQueue(sub string) string { return n.Namespace + "deliver." + sub }

// DeadQueue is the queue of dead letters of a subscription, reached through the default exchange.
func (n Names) DeadQueue(sub string) string { return n.Namespace + "dead." + sub }

// Retry is both the fanout exchange and the queue of a rung: a message published there with a
// subscription's id as the routing key returns to the subscription's queue after the delay.
func (n Names) Retry(rung time.Duration) string { return n.Namespace + "retry." + formatDelay(rung) }

// Memory is the queue whose single message shows that the broker still has the messages published
// before it.
func (n Names) Memory() string { return n.Namespace + "memory" }

// listenQueue is the queue that Subscriber.Subscribe declares for a topic and a group of consumers.
func (n Names) listenQueue(group, topic string) string {
	return n.Namespace + "listen." + group + "." + topic
}

// formatDelay formats 2m as "2m", whereas Duration.String returns "2m0s".
func formatDelay(d time.Duration) string {
	switch {
	case d >= time.Hour && d%time.Hour == 0:
		return fmt.Sprintf("%dh", d/time.Hour)
	case d >= time.Minute && d%time.Minute == 0:
		return fmt.Sprintf("%dm", d/time.Minute)
	default:
		return d.String()
	}
}
