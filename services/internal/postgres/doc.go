// Package postgres is the toolbox of the packages that hold SQL: connections,
// transactions, pages, prepared statements, leadership, and what errors of the
// driver mean.
//
// Errors of the driver do not leave Translate as they are: a missing row is
// ErrNotFound; a database that is away, restarting, full or resolving a deadlock is
// ErrUnavailable, which passes by itself; anything else is wrapped with the
// operation that failed. Probe tells at a start what will not pass.
package postgres
