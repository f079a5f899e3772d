package broker

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// idHeader carries the message's id, as watermill-amqp's default marshaler writes it.
const idHeader = "_watermill_message_uuid"

const (
	// The properties of a message travel in one frame, and RabbitMQ offers 128 KiB for it.
	maxHeaderBytes = 120 << 10
	// RabbitMQ 4 accepts bodies of up to 16 MiB by default, and closes the channel at a larger one.
	maxBodyBytes = 16 << 20
)

// MaxPrefetch is how many messages of a queue one process may hold at most.
const MaxPrefetch = 2048

// Publishing is a message to be published.
type Publishing struct {
	// Exchange and Key are the destination; the exchange "" routes to the queue named by the key.
	Exchange, Key string
	// Mandatory makes a message that reaches no queue an error.
	Mandatory bool
	// Queues is how many queues are known to get it. The broker confirms a message once all of them
	// have it, so thousands of queues extend the timeout.
	Queues int
	// Persistent makes the broker sync the message to its disk whatever Config.Persistent is.
	Persistent bool
	ID         string
	// Headers whose names are reserved by the broker (see [ReservedHeader]) are left out.
	Headers     map[string]string
	ContentType string
	Body        []byte
}

// Message is a message received from a queue.
type Message struct {
	ID  string
	Key string
	// Headers as strings, whatever their type was; tables and lists are JSON.
	Headers     map[string]string
	Body        []byte
	Redelivered bool
	ContentType string
	// Gone is closed when the channel that the message arrived on has ended: the broker will
	// redeliver it, or has lost it.
	Gone <-chan struct{}
}

// ReservedHeader reports whether the broker gives a header its own meaning. Sending such a header
// back as a string would at best be ignored (x-death), and at worst close the channel (CC) or make
// the broker see a cycle of dead letters and drop the message.
func ReservedHeader(name string) bool {
	switch name {
	case "CC", "BCC", "x-death", "x-delivery-count", "x-acquired-count", "x-opt-deaths",
		"x-first-death-exchange", "x-first-death-queue", "x-first-death-reason",
		"x-last-death-exchange", "x-last-death-queue", "x-last-death-reason":
		return true
	}
	return false
}

// validate refuses messages for which the library or the broker would close the channel or the
// connection, at the cost of other messages.
func (p *Publishing) validate() error {
	for what, s := range map[string]string{
		"exchange": p.Exchange, "routing key": p.Key, "id": p.ID, "content type": p.ContentType,
	} {
		if len(s) > maxName {
			return fmt.Errorf("%w: %s of %d bytes", ErrInvalid, what, len(s))
		}
	}
	size := len(p.ID)
	for k, v := range p.Headers {
		if len(k) > maxName {
			return fmt.Errorf("%w: header name of %d bytes", ErrInvalid, len(k))
		}
		size += len(k) + len(v) + 6
	}
	if size > maxHeaderBytes {
		return fmt.Errorf("%w: headers of %d bytes", ErrInvalid, size)
	}
	if len(p.Body) > maxBodyBytes {
		return fmt.Errorf("%w: body of %d bytes", ErrInvalid, len(p.Body))
	}
	return nil
}

// amqp returns the publishing for the wire.
func (p *Publishing) amqp(persistent bool) amqp.Publishing {
	headers := make(amqp.Table, len(p.Headers)+1)
	for k, v := range p.Headers {
		if !ReservedHeader(k) {
			headers[k] = v
		}
	}
	headers[idHeader] = p.ID
	mode := amqp.Transient
	if persistent || p.Persistent {
		mode = amqp.Persistent
	}
	return amqp.Publishing{
		Headers:      headers,
		ContentType:  p.ContentType,
		DeliveryMode: mode,
		MessageId:    p.ID,
		Body:         p.Body,
	}
}

// arrived converts any delivery to a Message.
func arrived(d *amqp.Delivery) Message {
	out := Message{
		ID:          d.MessageId,
		Key:         d.RoutingKey,
		Headers:     make(map[string]string, len(d.Headers)),
		Body:        d.Body,
		Redelivered: d.Redelivered,
		ContentType: d.ContentType,
	}
	for k, v := range d.Headers {
		if k == idHeader {
			out.ID = headerString(v)
			continue
		}
		out.Headers[k] = headerString(v)
	}
	return out
}

// headerString converts any header value to a string.
func headerString(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case string:
		return v
	case []byte:
		return string(v)
	case bool:
		return strconv.FormatBool(v)
	case time.Time:
		return v.UTC().Format(time.RFC3339)
	case amqp.Table, []any, amqp.Decimal:
		if b, err := json.Marshal(plain(v)); err == nil {
			return string(b)
		}
	}
	return fmt.Sprint(v)
}

// plain converts tables and lists to values that JSON can always encode, and in which byte strings
// stay readable.
func plain(v any) any {
	switch v := v.(type) {
	case amqp.Table:
		m := make(map[string]any, len(v))
		for k, e := range v {
			m[k] = plain(e)
		}
		return m
	case []any:
		l := make([]any, len(v))
		for i, e := range v {
			l[i] = plain(e)
		}
		return l
	case nil, string, bool, int8, uint8, int16, int32, int64, int:
		return v
	case amqp.Decimal:
		return float64(v.Value) / math.Pow10(int(v.Scale))
	default:
		return headerString(v)
	}
}
