package sender

import (
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"posthorn/events"
)

const maxRetryAfter = 24 * time.Hour

// retryAfter is the wait that a response asks for (RFC 9110, 10.2.3), in whole seconds: a number of
// seconds or a date, parsed leniently and never shortened. Of several values the longest counts. An
// invalid, negative or past value is 0; a longer wait than 24 h is 24 h. A date is compared with
// the clock of the server that sent it, or with ours, whichever makes the wait longer.
func retryAfter(header http.Header, now time.Time) time.Duration {
	values := header["Retry-After"]
	if len(values) == 0 {
		return 0
	}
	if theirs, ok := parseDate(header.Get("Date")); ok && theirs.Before(now) {
		now = theirs
	}
	var longest time.Duration
	for _, value := range values {
		if at, ok := parseDate(value); ok {
			longest = max(longest, wholeSeconds(at.Sub(now).Seconds()))
			continue
		}
		// A proxy joins the values of two headers with a comma.
		for part := range strings.SplitSeq(value, ",") {
			longest = max(longest, parseSeconds(part))
		}
	}
	return min(longest, maxRetryAfter)
}

// wholeSeconds rounds up, within 0 to 24 h.
func wholeSeconds(seconds float64) time.Duration {
	return time.Duration(math.Ceil(min(max(seconds, 0), maxRetryAfter.Seconds()))) * time.Second
}

// parseSeconds parses a number of seconds, which some servers write with a
// fraction, a sign, quotes, parameters or a unit.
func parseSeconds(text string) time.Duration {
	text, _, _ = strings.Cut(text, ";")
	text = strings.ToLower(strings.Trim(text, " \t\"'"))
	if d, err := time.ParseDuration(text); err == nil { // "90s", "1m30s"
		return wholeSeconds(d.Seconds())
	}
	number := strings.TrimRight(text, "abcdefghijklmnopqrstuvwxyz \t")
	unit := strings.TrimSpace(text[len(number):])
	if number == "" {
		number, unit = text, "" // "infinity"
	}
	n, err := strconv.ParseFloat(number, 64)
	if math.IsNaN(n) || err != nil && !math.IsInf(n, 1) {
		return 0
	}
	switch unit {
	case "", "s", "sec", "secs", "second", "seconds":
	case "ms", "msec", "millisecond", "milliseconds":
		n /= 1000
	case "m", "min", "mins", "minute", "minutes":
		n *= 60
	case "h", "hour", "hours":
		n *= 3600
	default:
		return 0
	}
	return wholeSeconds(n)
}

// Zones that a date may name. Other abbreviations are refused: they are
// ambiguous, and package time treats them as UTC.
func zoneOffset(name string) (string, bool) {
	switch name {
	case "GMT", "UTC", "UT", "Z":
		return "+0000", true
	case "EDT":
		return "-0400", true
	case "EST", "CDT":
		return "-0500", true
	case "CST", "MDT":
		return "-0600", true
	case "MST", "PDT":
		return "-0700", true
	case "PST":
		return "-0800", true
	}
	return name, strings.HasPrefix(name, "+") || strings.HasPrefix(name, "-")
}

// parseDate parses the three forms of HTTP's dates, in any case and with other
// zones, with or without the day of the week; and RFC 3339.
func parseDate(text string) (time.Time, bool) {
	ordinary := strings.Replace(text, ":60", ":59", 1)
	at, ok := parseOrdinaryDate(ordinary)
	if ordinary != text {
		at = at.Add(time.Second) // a leap second is over when the next one begins
	}
	return at, ok
}

func parseOrdinaryDate(text string) (time.Time, bool) {
	text = strings.Join(strings.Fields(strings.ToUpper(strings.Trim(text, " \t\"'"))), " ")
	if at, err := events.ParseTime(strings.Replace(text, " ", "T", 1)); err == nil {
		return at, true
	}
	if at, err := time.Parse(time.ANSIC, text); err == nil { // without a zone it is UTC
		return at, true
	}
	last := strings.LastIndexByte(text, ' ')
	if last < 0 {
		return time.Time{}, false
	}
	zone, ok := zoneOffset(text[last+1:])
	if !ok {
		return time.Time{}, false
	}
	if _, rest, weekday := strings.Cut(text[:last], ","); weekday {
		text = strings.TrimSpace(rest) + " " + zone
	} else {
		text = text[:last] + " " + zone
	}
	for _, layout := range [...]string{"2 Jan 2006 15:04:05 -0700", "2-Jan-06 15:04:05 -0700", "2-Jan-2006 15:04:05 -0700"} {
		if at, err := time.Parse(layout, text); err == nil {
			return at, true
		}
	}
	return time.Time{}, false
}
