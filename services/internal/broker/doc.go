// Package broker is Posthorn's only access to RabbitMQ, and the only package that imports Watermill
// and AMQP.
//
// It has four parts: a [Publisher] that confirms every message, a [Subscriber] that implements
// Watermill's interface, [Consumers] that run a handler for each of thousands of queues, and a
// [Topology] that declares and repairs the exchanges and queues.
//
// It promises that
//   - a message counts as published only once the broker has confirmed it, and if it is mandatory,
//     that it reached a queue; every publishing call ends within its deadline, even during a memory
//     alarm or on a dead connection;
//   - publishers and consumers recover by themselves from a lost connection, a closed channel, a
//     deleted queue;
//   - a graceful stop loses nothing and makes the broker redeliver no acknowledged message;
//   - messages are passed on whatever they contain: no header or body, however foreign, is refused
//     or requeued for ever;
//   - a problem of one queue does not affect others.
//
// Its errors say what to do: [ErrUnavailable] and [ErrBlocked] pass with time, [ErrNotFound] needs
// a declaration, [ErrForeign] an operator, [ErrInvalid] another message. An [Outcome] of [Unknown]
// means that the broker may have the message: publish it again and let the receiver recognise it.
//
// The wire format is that of watermill-amqp's default marshaler (header _watermill_message_uuid,
// metadata as string headers, the payload as the body), so any Watermill program can read the
// exchange. The stock publisher and subscriber are not used; the tests of this package name each
// reason.
package broker
