package events_test

import (
	"strings"
	"testing"
	"time"

	"posthorn/events"
)

func TestParseTimeReadsRFC3339(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"2026-01-31T08:00:00Z":                  "2026-01-31T08:00:00Z",
		"2026-01-31t08:00:00z":                  "2026-01-31T08:00:00Z",
		"2026-01-31T08:00:00.5z":                "2026-01-31T08:00:00.5Z",
		"2026-01-31t08:00:00+01:30":             "2026-01-31T06:30:00Z",
		"2026-01-31T08:00:00-23:59":             "2026-02-01T07:59:00Z",
		"2026-01-31T08:00:00-00:00":             "2026-01-31T08:00:00Z",
		"2026-01-31T08:00:00.123456789Z":        "2026-01-31T08:00:00.123456789Z",
		"2026-01-31T08:00:00.1234567899999999Z": "2026-01-31T08:00:00.123456789Z",
		"2024-02-29T00:00:00Z":                  "2024-02-29T00:00:00Z",
		"1990-12-31T23:59:60Z":                  "1990-12-31T23:59:59Z", // of the RFC
		"1990-12-31T15:59:60-08:00":             "1990-12-31T23:59:59Z", // of the RFC
		"2016-12-31T23:59:60.5Z":                "2016-12-31T23:59:59.5Z",
		"1937-01-01T12:00:27.87+00:20":          "1937-01-01T11:40:27.87Z", // of the RFC
		"0001-01-01T00:00:00.000000001Z":        "0001-01-01T00:00:00.000000001Z",
		"9999-12-31T23:59:59Z":                  "9999-12-31T23:59:59Z",
	} {
		got, err := events.ParseTime(text)
		if err != nil || got.Format(time.RFC3339Nano) != want {
			t.Errorf("ParseTime(%q) = %s, %v, want %s", text, got.Format(time.RFC3339Nano), err, want)
		}
	}
}

func TestParseTimeNamesTheError(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"":                               "RFC 3339",
		"yesterday":                      "RFC 3339",
		"2026-01-31":                     "RFC 3339",
		"2026-01-31T08:00:00":            "RFC 3339",
		"2026-01-31T08:00Z":              "RFC 3339",
		"2026-01-31T8:00:00Z":            "RFC 3339",
		"2026-01-31T8:00:00.00Z":         "RFC 3339",
		"2026-1-31T08:00:00.0Z":          "RFC 3339",
		"20260131T080000.000000Z":        "RFC 3339",
		"2026-01-31 08:00:00Z":           "space between date and time",
		"2026-01-31T08:00:00 01:00":      "%2B",
		"2026-01-31T08:00:00,5Z":         "comma",
		"2026-01-31T08:00:00,Z":          "comma",
		"2026-01-31T08:00:00.Z":          "RFC 3339",
		"2026-01-31T08:00:00.5":          "RFC 3339",
		"2026-01-31T08:00:00.5.5Z":       "RFC 3339",
		"2026-01-31T24:00:00Z":           "hour 24",
		"2026-01-31T25:00:00Z":           "RFC 3339",
		"2026-01-31T08:60:00Z":           "RFC 3339",
		"2026-01-31T08:00:61Z":           "RFC 3339",
		"2026-01-31T08:00:60Z":           "second 60",
		"2026-01-30T23:59:60Z":           "second 60",
		"2026-01-31T23:59:60+01:00":      "second 60",
		"2026-00-31T08:00:00Z":           "RFC 3339",
		"2026-13-01T08:00:00Z":           "RFC 3339",
		"2026-02-29T08:00:00Z":           "a day that its month does not have",
		"2026-01-00T08:00:00Z":           "RFC 3339",
		"2026-01-32T08:00:00Z":           "a day that its month does not have",
		"2026-01-31T08:00:00+24:00":      "offset",
		"2026-01-31T08:00:00+01:60":      "offset",
		"2026-01-31T08:00:00+0100":       "RFC 3339",
		"2026-01-31T08:00:00+01":         "RFC 3339",
		"2026-01-31T08:00:00*01:00":      "RFC 3339",
		"2026-01-31T08:00:00ZZ":          "RFC 3339",
		"2026-01-31T08:00:00Z ":          "RFC 3339",
		" 2026-01-31T08:00:00Z":          "RFC 3339",
		"+2026-01-31T08:00:00Z":          "RFC 3339",
		"-001-01-31T08:00:00Z":           "RFC 3339",
		"2026-01-31T08:00:00Z\n":         "RFC 3339",
		"2026-01-31\u017f08:00:00Z":      "RFC 3339",
		"\uff12026-01-31T08:00:00Z":      "RFC 3339",
		"0000-01-01T00:00:00Z":           "years 1 to 9999",
		"0001-01-01T00:00:00Z":           "years 1 to 9999", // a time.Time that is not set
		"0001-01-01T00:00:00+00:01":      "years 1 to 9999",
		"9999-12-31T23:59:59-00:01":      "years 1 to 9999",
		"12026-01-31T08:00:00Z":          "RFC 3339",
		strings.Repeat("2026-01-31T", 9): "RFC 3339",
	} {
		if got, err := events.ParseTime(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("ParseTime(%q) = %s, %v, want an error with %q", text, got, err, want)
		}
	}
}

func FuzzParseTimeTakesNoMoreThanTimeParse(f *testing.F) {
	for _, seed := range []string{"2026-01-31T08:00:00Z", "2026-01-31t08:00:00.5z", "2016-12-31T23:59:60Z", "2026-01-31T08:00:00,5+01:00"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, err := events.ParseTime(text)
		if err != nil || strings.Contains(text, ":60") {
			return
		}
		want, err := time.Parse(time.RFC3339Nano, strings.ToUpper(text))
		if err != nil || !got.Equal(want) {
			t.Errorf("ParseTime(%q) = %s, and time.Parse says %s, %v", text, got, want, err)
		}
	})
}
