package broker

import (
	"fmt"
	"time"

	"posthorn/events"
)

// maxName is the length that AMQP gives to names and routing keys, in bytes.
const maxName = 255

// Names are the names of exchanges and queues. The namespace stands before each, so that
// installations and tests can share a broker.
type Names struct{ Namespace string }

// OwnExchange reports whether an account's events go to an exchange of its own,
// and not to the one without a suffix.
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

// Deliver is the direct exchange that leads to each subscription's queue; the routing key is the
// subscription's id.
func (n Names) Deliver() string { return n.Namespace + "deliver" }

// DeliverQueue is the queue of deliveries of a subscription.
func (n Names) DeliverQueue(sub string) string { return n.Namespace + "deliver." + sub }

// DeadQueue is the queue of dead letters of a subscription, reached through the default exchange.
func (n Names) DeadQueue(sub string) string { return n.Namespace + "dead." + sub }

// Retry is both the fanout exchange and the queue of a rung: what is published there with a
// subscription's id as the routing key comes back to the subscription's queue after the delay.
func (n Names) Retry(rung time.Duration) string { return n.Namespace + "retry." + formatDelay(rung) }

// Memory is the queue whose one message shows that the broker still has what was published before.
func (n Names) Memory() string { return n.Namespace + "memory" }

// listenQueue is the queue that Subscriber.Subscribe makes for a topic and a group of consumers.
func (n Names) listenQueue(group, topic string) string {
	return n.Namespace + "listen." + group + "." + topic
}

// formatDelay writes 2m as "2m", where Duration.String writes "2m0s".
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
