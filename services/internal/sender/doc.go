// Package sender makes one HTTP POST to a third-party server: one attempt.
//
// It treats the server as hostile. It promises that
//
//   - no connection is made to an address that the Guard refuses, whatever a
//     name resolves to, on every connect and not only on the first;
//   - no redirect is followed, no proxy taken from the environment, nothing
//     decompressed;
//   - an attempt ends within its timeout, including the response's body, and
//     costs bounded memory whatever the other side sends;
//   - one Send is at most one request seen by the other side. There is no
//     automatic second one, not even on a connection that broke.
//
// Send never returns a Go error: every outcome is a Result with a Class, and
// with an Error that can be shown to the subscriber. That text never contains
// our addresses, a resolver's or the one that a name resolved to, and never
// reveals whether a name exists that must not be reached.
package sender
