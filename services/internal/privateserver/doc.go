// Package privateserver runs a Postgres and a RabbitMQ of one's own, for
// development and for tests, from the programs installed on the machine.
//
// It promises that everything of a server lies in the folder it was given,
// that it listens on 127.0.0.1 only, that it touches no server it did not
// start, and that nothing of it (RabbitMQ's epmd included) is left running
// after Stop or Kill. Servers are in process groups of their own, so Ctrl-C at
// the terminal reaches only the program that started them; on Linux they also
// stop when that program is killed. A second start in the same folder finds
// yesterday's data. Started by root, a server runs as the user that its
// distribution package made.
//
// Starting fails with ErrNotInstalled where the programs are missing, with
// ErrInUse where the folder's server is already running, and otherwise with an
// error that ends in the last lines of the server's log. A server that ends by
// itself closes Done.
package privateserver
