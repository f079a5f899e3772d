// Package privateserver runs a private Postgres and RabbitMQ, for development
// and for tests, from the programs installed on the machine.
//
// It promises that all files of a server are in its folder, that it listens on
// 127.0.0.1 only, that it touches no server it did not start, and that none of
// its processes (including RabbitMQ's epmd) is left running after Stop or Kill.
// Servers are in process groups of their own, so Ctrl-C at the terminal reaches
// only the program that started them; on Linux they also stop when that program
// is killed. A second start in the same folder finds yesterday's data. If root
// starts it, a server runs as the user that its distribution package created.
//
// Starting fails with ErrNotInstalled if the programs are missing, with
// ErrInUse if the folder's server is already running, and otherwise with an
// error that ends in the last lines of the server's log. A server that exits
// closes Done.
package privateserver
