package envelope_test

import (
	"errors"
	"maps"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"posthorn/services/internal/envelope"
	"posthorn/services/internal/ledger"
)

func TestParseInvertsHeaders(t *testing.T) {
	t.Parallel()
	at := time.UnixMilli(1700000000123)
	for _, e := range []envelope.Envelope{
		{Position: 1, Cause: ledger.CauseLive, PublishedAt: at},
		{Position: 1 << 40, Cause: ledger.CauseReplay, Run: 3, Attempts: 7, Wait: 90 * time.Second, Suspect: true, PublishedAt: at},
		{Position: 2, Cause: ledger.CauseTest, PublishedAt: at, TraceParent: "00-a-b-01", TraceState: "x=y"},
	} {
		got, err := envelope.Parse(e.Headers())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(e, got); diff != "" {
			t.Errorf("envelope (-sent +got):\n%s", diff)
		}
	}
}

func TestForeignHeadersAreRefused(t *testing.T) {
	t.Parallel()
	good := envelope.Envelope{Position: 1, Attempts: 1, Wait: time.Second, Cause: ledger.CauseLive, PublishedAt: time.Now()}.Headers()
	change := func(name, value string) map[string]string {
		h := maps.Clone(good)
		h[name] = value
		return h
	}
	for name, headers := range map[string]map[string]string{
		"none":              nil,
		"no position":       change("posthorn-position", ""),
		"position 0":        change("posthorn-position", "0"),
		"position of words": change("posthorn-position", "one"),
		"unknown cause":     change("posthorn-cause", "because"),
		"negative attempts": change("posthorn-attempts", "-1"),
		"run of words":      change("posthorn-run", "x"),
		"huge attempts":     change("posthorn-attempts", "99999999999"),
		"wait for ever":     change("posthorn-wait-ms", "9223372036854775807"),
		"time of words":     change("posthorn-published-at", "now"),
	} {
		if _, err := envelope.Parse(headers); !errors.Is(err, envelope.ErrForeign) {
			t.Errorf("%s: Parse = %v, want ErrForeign", name, err)
		}
	}
	if _, err := envelope.Parse(good); err != nil {
		t.Errorf("Parse = %v", err)
	}
}
