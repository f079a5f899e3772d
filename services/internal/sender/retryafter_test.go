package sender

import (
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestRetryAfterIsReadLenientlyAndNeverAsLess(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 2, 3, 4, 5, 300_000_000, time.UTC)
	for value, want := range map[string]time.Duration{
		"": 0, "0": 0, "-5": 0, "soon": 0, "NaN": 0, "1,soon": time.Second, "Fri": 0, "5 parsecs": 0,
		"30": 30 * time.Second, " 30 ": 30 * time.Second, "+30": 30 * time.Second, "030": 30 * time.Second, `"30"`: 30 * time.Second,
		"1.5": 2 * time.Second, "0.001": time.Second, "29.0": 29 * time.Second, "1e2": 100 * time.Second,
		"30s": 30 * time.Second, "1m30s": 90 * time.Second, "500ms": time.Second, "30 seconds": 30 * time.Second, "1 second": time.Second, "30 Sec": 30 * time.Second,
		"120, 120": 2 * time.Minute, "10,60,30": time.Minute,
		"86400": 24 * time.Hour, "86401": 24 * time.Hour, "999999999": 24 * time.Hour, "Infinity": 24 * time.Hour, "100000h": 24 * time.Hour,
		strings.Repeat("9", 400):             24 * time.Hour,
		"Fri, 02 Jan 2026 03:05:06 GMT":      61 * time.Second,
		"Friday, 02-Jan-26 03:05:06 GMT":     61 * time.Second,
		"Fri Jan  2 03:05:06 2026":           61 * time.Second,
		"Fri, 2 Jan 2026 03:05:06 GMT":       61 * time.Second,
		"Fri, 02 Jan 2026 03:05:06 UTC":      61 * time.Second,
		"Fri, 02 Jan 2026 04:05:06 +0100":    61 * time.Second,
		"2026-01-02T03:05:06Z":               61 * time.Second,
		"2026-01-02T04:05:06.000+01:00":      61 * time.Second,
		"Fri, 02 Jan 2026 03:03:05 GMT":      0,
		"Fri, 02 Jan 2099 03:03:05 GMT":      24 * time.Hour,
		"Fri, 02 Jan 2026 03:05:06 Nowhere":  0,
		"Fri, 32 Jan 2026 03:05:06 GMT":      0,
		"Fri, 02 Jan 2026 03:05:06 GMT, 120": 2 * time.Minute,
	} {
		if got := retryAfter(http.Header{"Retry-After": {value}}, now); got != want {
			t.Errorf("%q: %v, want %v", value, got, want)
		}
	}
	for name, c := range map[string]struct {
		header http.Header
		want   time.Duration
	}{
		"no header":                         {http.Header{}, 0},
		"two headers":                       {http.Header{"Retry-After": {"5", "60"}}, time.Minute},
		"a server whose clock is behind":    {http.Header{"Date": {"Fri, 02 Jan 2026 02:00:00 GMT"}, "Retry-After": {"Fri, 02 Jan 2026 02:01:00 GMT"}}, time.Minute},
		"a server whose clock is ahead":     {http.Header{"Date": {"Fri, 02 Jan 2026 03:06:05 GMT"}, "Retry-After": {"Fri, 02 Jan 2026 03:06:06 GMT"}}, 121 * time.Second},
		"a date beside a Date that is none": {http.Header{"Date": {"now"}, "Retry-After": {"Fri, 02 Jan 2026 03:05:06 GMT"}}, 61 * time.Second},
	} {
		if got := retryAfter(c.header, now); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}
