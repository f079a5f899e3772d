// Package bench measures Posthorn from outside: real processes, a Postgres and
// a RabbitMQ of their own, a load generator that counts latency from the time
// at which a request was meant to start, and a receiver in a process of its
// own.
//
// Machines differ and are noisy, so beside each figure stands what the same
// run measured of what lies below: Postgres alone, RabbitMQ alone, plain HTTP.
// Every run is checked: an event that did not arrive, or arrived twice, makes
// a scenario fail, however fast it was.
package bench
