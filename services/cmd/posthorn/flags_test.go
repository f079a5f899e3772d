package main

import (
	"bytes"
	"slices"
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

func TestTimesOfFlagsAreThoseOfRFC3339(t *testing.T) {
	t.Parallel()
	const database = "--database-url=postgres://nobody@127.0.0.1:1/none?connect_timeout=1"
	for _, command := range [][]string{
		{"outbox", "tail", "--from"},
		{"outbox", "export", "--to"},
		{"replay", "--subscription=sub_019a0000-0000-7000-8000-000000000000", "--from"},
		{"replay", "--subscription=sub_019a0000-0000-7000-8000-000000000000", "--to"},
		{"dead-letters", "list", "--since"},
		{"dead-letters", "list", "--until"},
		{"dead-letters", "redrive", "--subscription=sub_019a0000-0000-7000-8000-000000000000", "--since"},
	} {
		for at, says := range map[string]string{
			"2026-01-31T08:00:00,5Z": "comma", "2026-01-31 08:00:00Z": "space", "2026-01-31T24:00:00Z": "24", "2026-01-31T08:00:60Z": "second 60",
			"yesterday": "2026-01-31T08:00:00Z",
		} {
			args := append(slices.Clip(command), at, database)
			var out, errOut bytes.Buffer
			if code := run(t.Context(), args, &out, &errOut); code != 2 || !strings.Contains(errOut.String(), says) {
				t.Errorf("posthorn %q: exit code %d, %s", args, code, errOut.String())
			}
		}
		for _, at := range []string{"2026-01-31t08:00:00z", "2016-12-31T23:59:60Z", "2026-01-31T08:00:00+01:00"} {
			args := append(slices.Clip(command), at, database)
			var out, errOut bytes.Buffer
			// Nobody is at the address: it is past the command line.
			if code := run(t.Context(), args, &out, &errOut); code != 1 {
				t.Errorf("posthorn %q: exit code %d, %s", args, code, errOut.String())
			}
		}
	}
}

func TestAnImportReadsTimesLikeAnyOther(t *testing.T) {
	t.Parallel()
	const line = `{"id":"a","kind":"event","account":"default","type":"A","subject":"","data":1,"metadata":{},"occurredAt":"%","recordedAt":"2026-01-31T08:00:00Z"}`
	for at, ok := range map[string]bool{
		"2026-01-31T08:00:00Z": true, "2026-01-31t08:00:00.5z": true, "2016-12-31T23:59:60Z": true,
		"2026-01-31T08:00:00,5Z": false, "2026-01-31 08:00:00Z": false, "": false,
	} {
		e, err := parseLine([]byte(strings.Replace(line, "%", at, 1)))
		if (err == nil) != ok || ok && e.OccurredAt.IsZero() {
			t.Errorf("%q: %+v, %v", at, e, err)
		}
	}
}
