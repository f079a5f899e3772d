// Package broker is Posthorn's only door to RabbitMQ, and the only package that knows Watermill and
// AMQP.
//
// It is for four things: a [Publisher] that confirms every message, a [Subscriber] that speaks
// Watermill's interface, [Consumers] that run a handler for each of thousands of queues, and a
// [Topology] that declares and repairs the exchanges and queues.
//
// It promises that
//   - a message counts as published only once the broker has confirmed it, and where a queue must exist, that it
//     reached one; every call that publishes ends within its deadline, also during a memory alarm or on a dead line;
//   - publishers and consumers come back by themselves after a lost connection, a closed channel, a deleted queue;
//   - a graceful stop loses nothing and makes the broker deliver nothing twice that was acknowledged;
//   - what arrives is passed on whatever it looks like: no header or body, however foreign, is refused or requeued
//     for ever;
//   - the trouble of one queue stays its own.
//
// It fails with errors that say what to do: [ErrUnavailable] and [ErrBlocked] pass with time,
// [ErrNotFound] asks for a declaration, [ErrForeign] for a person, [ErrInvalid] for another
// message. An [Outcome] of [Unknown] means that the broker may have the message: publish it again
// and let the receiver recognise it.
//
// The wire format is that of watermill-amqp's default marshaler (header _watermill_message_uuid,
// metadata as string headers, the payload as the body), so any Watermill program can read the
// exchange. The stock publisher and subscriber themselves are not used; the tests of this package
// name each reason.
package broker
