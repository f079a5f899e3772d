// Package bench measures Posthorn from outside: real processes, private
// Postgres and RabbitMQ servers, a load generator that counts latency from the
// time at which a request was due, and a receiver in a separate process.
//
// Machines differ and are noisy, so each figure comes with a limit that the
// same run measured: Postgres alone, RabbitMQ alone, plain HTTP. Every run is
// checked: an event that did not arrive, or arrived twice, fails a scenario,
// however fast it was.
package bench
