// Package e2e has only tests: they run the daemons together, on a real Postgres
// and a real RabbitMQ, and check the result as a user would, over HTTP. A test
// that wipes or stops a server starts a private one.
package e2e
