package main

import (
	"bytes"
	"strings"
	"testing"
)

func TestAnAddressWithoutHostOrPortIsRefusedBeforeAnythingRuns(t *testing.T) {
	t.Parallel()
	const database, broker = "--database-url=postgres://nobody@127.0.0.1:1/none", "--amqp-url=amqp://127.0.0.1:1/"
	for _, args := range [][]string{
		{"api", database, "--http-addr=3999"},
		{"run", database, broker, "--http-addr=:3999"},
		{"run", database, broker, "--http-addr=localhost"},
		{"run", database, broker, "--http-addr=0.0.0.0:99999"},
		{"run", database, broker, "--http-addr="},
		{"dev", "--http-addr=3999"},
		{"inbox", "--inbox-addr=3001"},
		{"dev", "--inbox-addr=:3001"},
		{"relay", database, broker, "--metrics-addr=9090"},
		{"delivery", database, broker, "--pprof-addr=6060"},
	} {
		var out, errOut bytes.Buffer
		if code := run(t.Context(), args, &out, &errOut); code != 2 || !strings.Contains(errOut.String(), "want host:port such as 127.0.0.1:") {
			t.Errorf("posthorn %q: exit code %d, %s", args, code, errOut.String())
		}
	}
}
