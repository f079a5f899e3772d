package sender

import (
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
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
		strings.Repeat("9", 400):          24 * time.Hour,
		"Fri, 02 Jan 2026 03:05:06 GMT":   61 * time.Second,
		"Friday, 02-Jan-26 03:05:06 GMT":  61 * time.Second,
		"Fri Jan  2 03:05:06 2026":        61 * time.Second,
		"Fri, 2 Jan 2026 03:05:06 GMT":    61 * time.Second,
		"Fri, 02 Jan 2026 03:05:06 UTC":   61 * time.Second,
		"Fri, 02 Jan 2026 04:05:06 +0100": 61 * time.Second,
		"2026-01-02T03:05:06Z":            61 * time.Second,
		"2026-01-02T04:05:06.000+01:00":   61 * time.Second,
		// In other cases, zones and forms.
		"fri, 02 jan 2026 03:05:06 gmt":      61 * time.Second,
		"02 Jan 2026 03:05:06 GMT":           61 * time.Second,
		"Fri, 02-Jan-2026 03:05:06 GMT":      61 * time.Second,
		"Friday, 02-Jan-26 03:05:06 EST":     5*time.Hour + 61*time.Second,
		"Thu, 01 Jan 2026 22:05:06 EST":      61 * time.Second,
		"Fri, 02 Jan 2026 03:05:06 CET":      0, // ambiguous
		"2026-01-02t03:05:06z":               61 * time.Second,
		"2026-01-02 03:05:06Z":               61 * time.Second,
		"2026-01-02T03:04:60Z":               55 * time.Second,
		"Fri, 02 Jan 2026 03:04:60 GMT":      55 * time.Second, // a leap second
		"2 minutes":                          2 * time.Minute,
		"1 hour":                             time.Hour,
		"1500 ms":                            2 * time.Second,
		"120;foo=1":                          2 * time.Minute,
		"-1m":                                0,
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

func TestSendReadsRetryAfterOfAResponseThatIsCutOff(t *testing.T) {
	t.Parallel()
	url := rawServer(t, func(conn net.Conn) {
		_, _ = io.WriteString(conn, "HTTP/1.1 503 No\r\nRetry-After: 120\r\nContent-Length: 10\r\n\r\nabc")
	})
	got := newSender(t, Config{}).Send(t.Context(), newRequestTo(url))
	if got.Class != ClassConnect || got.RetryAfter != 2*time.Minute {
		t.Errorf("%s, Retry-After %v", got.Class, got.RetryAfter)
	}
}

func TestRetryAfterIsNeverEarly(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		now := time.Unix(1767323045, rapid.Int64Range(0, 999_999_999).Draw(t, "nanoseconds")).UTC()
		wait := time.Duration(rapid.Int64Range(1, int64(23*time.Hour)).Draw(t, "wait"))
		for _, value := range []string{
			strconv.FormatFloat(wait.Seconds(), 'f', -1, 64), wait.String(), now.Add(wait).Format(time.RFC3339Nano),
		} {
			got := retryAfter(http.Header{"Retry-After": {value}}, now)
			if got < wait || got > wait+time.Second || got%time.Second != 0 {
				t.Fatalf("%q: %v, want %v rounded up", value, got, wait)
			}
		}
	})
}

func FuzzRetryAfter(f *testing.F) {
	f.Add("120, 30s", "Fri, 02 Jan 2026 03:05:05 GMT")
	f.Add("2026-01-02 03:04:60Z", "")
	f.Fuzz(func(t *testing.T, value, date string) {
		got := retryAfter(http.Header{"Retry-After": {value}, "Date": {date}}, time.Now())
		if got < 0 || got > maxRetryAfter || got%time.Second != 0 {
			t.Errorf("%q: %v", value, got)
		}
	})
}
