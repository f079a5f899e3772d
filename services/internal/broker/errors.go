package broker

import (
	"context"
	"errors"
	"fmt"

	amqp "github.com/rabbitmq/amqp091-go"
)

var (
	// ErrUnavailable is returned by every function that needs the broker when it cannot be reached
	// or does not answer in time. It passes by itself.
	ErrUnavailable = errors.New("broker unavailable")
	// ErrBlocked is returned by PublishAll while the broker accepts no messages because of a memory
	// or disk alarm. It passes by itself; consuming and declaring continue meanwhile.
	ErrBlocked = errors.New("broker refuses to accept messages (memory or disk alarm)")
	// ErrNotFound is returned by PublishAll for a missing exchange and by Topology for a missing
	// exchange or queue.
	ErrNotFound = errors.New("no such exchange or queue")
	// ErrForeign is returned by Topology when an exchange or queue exists with other properties
	// than ours. Only deleting it helps.
	ErrForeign = errors.New("exists with other properties")
	// ErrNoConfirm is returned by PublishAll, with ErrUnavailable, if the broker is reachable but
	// does not confirm: it is busy with the message, or with one before it.
	ErrNoConfirm = errors.New("no confirm in time")
	// ErrReturned is returned by PublishAll when a mandatory message reached no queue.
	ErrReturned = errors.New("message reached no queue")
	// ErrNacked is returned by PublishAll when the broker refused a message.
	ErrNacked = errors.New("broker refused message")
	// ErrInvalid is returned by PublishAll for a message that AMQP cannot carry; sending it would
	// cost the connection.
	ErrInvalid = errors.New("message cannot be sent")
	// ErrClosed is returned by all calls after Close.
	ErrClosed = errors.New("closed")
	// ErrAdded is returned by Consumers.Add for a queue that was already added, or that is still
	// being removed.
	ErrAdded = errors.New("queue is already consumed")
)

// Refused reports whether an error of PublishAll is about the messages: the broker was reachable
// but did not accept them. Any other error passes by itself.
func Refused(err error) bool {
	switch {
	case err == nil, errors.Is(err, ErrBlocked), errors.Is(err, ErrClosed):
		return false
	case errors.Is(err, ErrNoConfirm):
		return true
	}
	return !errors.Is(err, ErrUnavailable) && !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded)
}

// Describe returns a public description of an error of this package, since the error may contain
// addresses. It is empty for errors that are not the broker's.
func Describe(err error) string {
	if e, ok := errors.AsType[*amqp.Error](err); ok {
		switch e.Code {
		case amqp.AccessRefused:
			return "RabbitMQ refuses the user, the password or a permission (AMQP_URL)"
		case amqp.NotAllowed:
			return "RabbitMQ does not let this user use the virtual host (AMQP_URL)"
		}
	}
	switch {
	case err == nil:
		return ""
	case errors.Is(err, ErrBlocked):
		return "RabbitMQ accepts no messages: it has a memory or disk alarm"
	case errors.Is(err, ErrForeign):
		return "an exchange or queue of Posthorn's exists in RabbitMQ with other properties"
	case errors.Is(err, ErrNoConfirm):
		return "RabbitMQ does not confirm messages in time"
	case errors.Is(err, ErrUnavailable):
		return "RabbitMQ cannot be reached"
	case errors.Is(err, ErrNotFound), errors.Is(err, ErrReturned), errors.Is(err, ErrNacked), errors.Is(err, ErrInvalid):
		return "RabbitMQ refuses a message or a declaration"
	}
	return ""
}

// translate turns an error of the AMQP library into one of this package. An error that is not a
// channel exception concerns the connection.
func translate(err error) error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*amqp.Error](err); ok {
		switch e.Code {
		case amqp.NotFound:
			return fmt.Errorf("%w: %w", ErrNotFound, err)
		case amqp.PreconditionFailed, amqp.ResourceLocked:
			return fmt.Errorf("%w: %w", ErrForeign, err)
		case amqp.AccessRefused, amqp.NotAllowed, amqp.NotImplemented:
			return err
		}
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, err)
}
