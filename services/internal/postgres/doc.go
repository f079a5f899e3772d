// Package postgres is the toolbox of the packages that hold SQL: connections,
// transactions, pages, prepared statements, leadership, and the meaning of
// driver errors.
//
// Translate maps errors of the driver: a missing row is ErrNotFound; a database that is
// unreachable, restarting, full or resolving a deadlock is ErrUnavailable, which is temporary; any
// other error is wrapped with the operation that failed. At startup Probe reports errors that are
// permanent.
package postgres
