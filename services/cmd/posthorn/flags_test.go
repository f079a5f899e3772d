package main

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
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

func TestTimesOfFlagsAreParsedAsRFC3339(t *testing.T) {
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
			// Nothing listens at the address; the command line was accepted.
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

func TestAllowedNetworksAreParsedStrictly(t *testing.T) {
	t.Parallel()
	for text, says := range map[string]string{
		"127.0.0.1/0": "want 0.0.0.0/0, or 127.0.0.1/32", "10.1.2.3/16": "want 10.1.0.0/16, or 10.1.2.3/32", "fd00::1/64": "want fd00::/64, or fd00::1/128",
		"10.1": "want a CIDR", "10.0.0.1": "want a CIDR such as 10.0.0.1/32", "fd00::5": "want a CIDR such as fd00::5/128", "": "want a CIDR", "10.0.0.0/33": "want a CIDR", "10.0.0.0/08": "want a CIDR", "a/8": "want a CIDR",
	} {
		if _, err := (deliveryFlags{AllowNetworks: []string{text}}).networks(slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v, want %q", text, err, says)
		}
	}
	for text, warns := range map[string]bool{
		"10.1.0.0/16": false, "127.0.0.0/8": false, " 192.168.1.7/32": false, "fd00:1::/32": false, "::1/128": false, "::ffff:10.0.0.0/104": false,
		"0.0.0.0/0": true, "0.0.0.0/7": true, "169.254.0.0/16": true, "169.254.169.254/32": true, "::ffff:169.254.0.0/112": true, "fd00::/8": true, "::/0": true, "fc00::/7": true, "::ffff:0:0/96": true,
		"100.64.0.0/10": true, "192.0.0.0/24": true, "fd20:ce::/32": true,
	} {
		var log bytes.Buffer
		networks, err := (deliveryFlags{AllowNetworks: []string{text}}).networks(slog.New(slog.NewTextHandler(&log, nil)))
		if err != nil || len(networks) != 1 {
			t.Errorf("%q: %v, %v", text, networks, err)
		}
		if !strings.Contains(log.String(), "level=INFO") || strings.Contains(log.String(), "level=WARN") != warns {
			t.Errorf("%q: warned %t, want %t: %s", text, !warns, warns, &log)
		}
	}
}

func TestNetworksAreCheckedBeforeAnythingStarts(t *testing.T) {
	t.Parallel()
	folder := filepath.Join(t.TempDir(), "data")
	var out, errOut bytes.Buffer
	code := run(t.Context(), []string{"dev", "--data-dir=" + folder, "--allow-networks=127.0.0.1/0"}, &out, &errOut)
	if code == 0 || !strings.Contains(errOut.String(), "want 0.0.0.0/0, or 127.0.0.1/32") {
		t.Errorf("exit code %d, %s", code, errOut.String())
	}
	if entries, err := os.ReadDir(folder); err == nil && len(entries) > 0 {
		t.Errorf("there are %v already", entries)
	}
}

func TestAPasswordThatHasToBeEncodedIsNotShown(t *testing.T) {
	t.Parallel()
	const database, broker = "postgres://nobody@127.0.0.1:1/none", "amqp://127.0.0.1:1/"
	for _, secret := range []string{"zq/vx", "zq?vx", "zq#vx", "zq%vx", "zq vx", "zq@vx/kj", "5432/zqvx"} {
		for name, addresses := range map[string][2]string{
			"DATABASE_URL": {"postgres://u:" + secret + "@127.0.0.1:1/db", broker}, "AMQP_URL": {database, "amqp://u:" + secret + "@127.0.0.1:1/"},
		} {
			for _, part := range []string{"run", "relay", "delivery"} {
				var out, errOut bytes.Buffer
				code := run(t.Context(), []string{part, "--database-url=" + addresses[0], "--amqp-url=" + addresses[1], "--data-dir=" + t.TempDir(), "--metrics-addr="}, &out, &errOut)
				if code == 0 || !strings.Contains(errOut.String(), name) || !strings.Contains(errOut.String(), "percent-encoded") {
					t.Errorf("%s with %q in %s: exit code %d, %s", part, secret, name, code, errOut.String())
				}
				for _, piece := range []string{"zq", "vx", "kj"} {
					if strings.Contains(errOut.String(), piece) {
						t.Errorf("%s with %q in %s shows a piece of it: %s", part, secret, name, errOut.String())
					}
				}
			}
		}
	}
}
