package web_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"posthorn/services/internal/web"
)

func TestWrongKeysAreSlowedByNetworkAndToldOnceAMinute(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	var log bytes.Buffer
	g := web.NewGuesses(slog.New(slog.NewTextHandler(&log, nil)), func() time.Time { return now })
	answered := func(from string, tries int) (n int) {
		r := httptest.NewRequestWithContext(t.Context(), "GET", "/", nil)
		for range tries {
			r.RemoteAddr = from
			if g.Wrong(r) == 0 {
				n++
			}
		}
		return n
	}
	if n := answered("192.0.2.1:1", 1000); n != 10 {
		t.Errorf("%d of 1,000 are answered at once, want 10", n)
	}
	if n := answered("192.0.2.2:1", 1); n != 1 {
		t.Error("another network is slowed too")
	}
	// Addresses of one customer are one network.
	n := 0
	for i := range 100 {
		n += answered(fmt.Sprintf("[2001:db8::%x]:1", i), 1)
	}
	if n != 10 {
		t.Errorf("%d of 100 addresses of a network are answered, want 10", n)
	}
	now = now.Add(59 * time.Second)
	if n := answered("192.0.2.1:1", 100); n != 10 {
		t.Errorf("after a pause %d are answered, want 10 again", n)
	}
	if lines := strings.Count(log.String(), "\n"); lines != 1 {
		t.Errorf("%d lines in a minute:\n%s", lines, &log)
	}
	now = now.Add(time.Second)
	answered("192.0.2.1:1", 1)
	if !strings.Contains(log.String(), "count=1201 last_from=192.0.2.1/32") {
		t.Errorf("log:\n%s", &log)
	}
	// Many networks together are limited too.
	n = 0
	for i := range 10_000 {
		n += answered(fmt.Sprintf("10.0.%d.%d:1", i/256, i%256), 1)
	}
	if n > 60 {
		t.Errorf("%d of 10,000 networks are answered within a moment", n)
	}
}
