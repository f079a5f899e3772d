// Package e2e has only tests: they run the daemons together, on a real
// Postgres and a real RabbitMQ, and look at the result as a user would, over
// HTTP. What needs a server of its own (to wipe or to stop it) starts one.
package e2e
