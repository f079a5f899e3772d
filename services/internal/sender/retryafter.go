package sender

import (
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const maxRetryAfter = 24 * time.Hour

// retryAfter is how long a response asks to be left alone (RFC 9110, 10.2.3):
// a number of seconds or a date, read leniently, and never as less than what is
// asked for. Of several values the longest counts. What is neither, negative or
// past is 0; what is too far is 24 h. A date is taken by the clock of the server
// that sent it, or by ours, whichever makes the wait longer.
func retryAfter(header http.Header, now time.Time) time.Duration {
	theirs := now
	if sent, ok := parseDate(header.Get("Date")); ok {
		theirs = sent
	}
	var longest time.Duration
	for _, value := range header.Values("Retry-After") {
		if at, ok := parseDate(value); ok {
			longest = max(longest, at.Sub(now), at.Sub(theirs))
			continue
		}
		// A proxy joins the values of two headers.
		for part := range strings.SplitSeq(value, ",") {
			longest = max(longest, parseSeconds(part))
		}
	}
	if whole := longest.Truncate(time.Second); whole < longest {
		longest = whole + time.Second
	}
	return min(longest, maxRetryAfter)
}

// parseSeconds reads a number of seconds, which some write with a fraction, a
// sign, quotes or a unit.
func parseSeconds(text string) time.Duration {
	text = strings.ToLower(strings.Trim(text, " \t\"'"))
	if d, err := time.ParseDuration(text); err == nil { // "90s", "1m30s"
		return max(0, min(d, maxRetryAfter+time.Second))
	}
	for _, unit := range [...]string{"seconds", "second", "secs", "sec"} {
		text = strings.TrimSuffix(text, unit)
	}
	seconds, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
	switch {
	case math.IsNaN(seconds) || seconds < 0:
		return 0
	case err != nil && !math.IsInf(seconds, 1):
		return 0
	case seconds > maxRetryAfter.Seconds():
		return maxRetryAfter // also for a number that does not fit
	}
	return time.Duration(math.Ceil(seconds * float64(time.Second)))
}

// parseDate reads the three forms of HTTP, those of mail and of the Internet
// (RFC 5322, RFC 3339), and what lies between.
func parseDate(text string) (time.Time, bool) {
	text = strings.Trim(text, " \t\"'")
	if at, err := http.ParseTime(text); err == nil {
		return at, true
	}
	for _, layout := range [...]string{
		time.RFC3339, time.RFC1123Z, "Mon, 2 Jan 2006 15:04:05 MST", "Mon, 2 Jan 2006 15:04:05 -0700", "2 Jan 2006 15:04:05 MST",
		"Mon, 02-Jan-2006 15:04:05 MST",
	} {
		at, err := time.Parse(layout, text)
		if err != nil {
			continue
		}
		if _, offset := at.Zone(); offset == 0 && layout != time.RFC3339 && !strings.HasSuffix(text, "0000") &&
			!strings.HasSuffix(text, "GMT") && !strings.HasSuffix(text, "UTC") {
			return time.Time{}, false // the name of a zone that nobody knows here
		}
		return at, true
	}
	return time.Time{}, false
}
