package events

import (
	"errors"
	"time"
)

var errTime = errors.New("want a time such as 2026-01-31T08:00:00Z (RFC 3339)")

// ParseTime parses an RFC 3339 time, all of the format and nothing else: t and
// z may be lower case, a fraction follows a point and may have any number of
// digits, of which nine count, and a leap second counts as the second before
// it. A space in place of the T is refused. The result is in UTC and in the
// years 1 to 9999.
//
// time.Parse accepts a comma, an hour of one digit and offsets beyond a day,
// and refuses lower-case letters and leap seconds.
func ParseTime(text string) (time.Time, error) {
	const whole = "2026-01-31T08:00:00Z"
	if len(text) < len(whole) {
		return time.Time{}, errTime
	}
	if text[10] == ' ' {
		return time.Time{}, errors.New("has a space between date and time: want a T, as in 2026-01-31T08:00:00Z (RFC 3339)")
	}
	number := func(from, to int) int {
		n := 0
		for _, c := range []byte(text[from:to]) {
			if c < '0' || c > '9' {
				return -1
			}
			n = 10*n + int(c-'0')
		}
		return n
	}
	year, month, day := number(0, 4), number(5, 7), number(8, 10)
	hour, minute, second := number(11, 13), number(14, 16), number(17, 19)
	if min(year, month, day, hour, minute, second) < 0 || text[4] != '-' || text[7] != '-' || text[10]|0x20 != 't' ||
		text[13] != ':' || text[16] != ':' {
		return time.Time{}, errTime
	}
	fraction, rest, err := cutFraction(text[19:])
	if err != nil {
		return time.Time{}, err
	}
	offset, err := parseOffset(rest)
	if err != nil {
		return time.Time{}, err
	}
	leap := second == 60
	if leap {
		second = 59
	}
	switch {
	case hour == 24:
		return time.Time{}, errors.New("has the hour 24: want 00:00 of the next day")
	case hour > 23, minute > 59, second > 59, month < 1, month > 12, day < 1:
		return time.Time{}, errTime
	}
	local := time.Date(year, time.Month(month), day, hour, minute, second, int(fraction), time.UTC)
	if local.Day() != day {
		return time.Time{}, errors.New("has a day that its month does not have")
	}
	at := local.Add(-offset)
	if leap && (at.Hour() != 23 || at.Minute() != 59 || at.AddDate(0, 0, 1).Day() != 1) {
		return time.Time{}, errors.New("has the second 60, which only the last minute of a month has, in UTC")
	}
	if at.Year() < 1 || at.Year() > 9999 || at.IsZero() {
		return time.Time{}, errors.New("must lie in the years 1 to 9999")
	}
	return at, nil
}

// cutFraction reads the fraction of a second, if there is one.
func cutFraction(text string) (fraction time.Duration, rest string, err error) {
	if text[0] == ',' {
		return 0, "", errors.New("has a comma before the fraction of the second: want a point")
	}
	if text[0] != '.' {
		return 0, text, nil
	}
	end := 1
	for digit := 100 * time.Millisecond; end < len(text) && text[end] >= '0' && text[end] <= '9'; end++ {
		fraction += time.Duration(text[end]-'0') * digit
		digit /= 10
	}
	if end == 1 || end == len(text) {
		return 0, "", errTime
	}
	return fraction, text[end:], nil
}

// parseOffset reads Z, or a sign, hours and minutes.
func parseOffset(text string) (time.Duration, error) {
	if text == "Z" || text == "z" {
		return 0, nil
	}
	if len(text) != len("+01:00") || text[3] != ':' {
		return 0, errTime
	}
	for _, i := range []int{1, 2, 4, 5} {
		if text[i] < '0' || text[i] > '9' {
			return 0, errTime
		}
	}
	hours, minutes := 10*int(text[1]-'0')+int(text[2]-'0'), 10*int(text[4]-'0')+int(text[5]-'0')
	if hours > 23 || minutes > 59 {
		return 0, errors.New("has an offset of a day or more")
	}
	offset := time.Duration(hours)*time.Hour + time.Duration(minutes)*time.Minute
	switch text[0] {
	case '+':
		return offset, nil
	case '-':
		return -offset, nil
	case ' ':
		return 0, errors.New("has a space for the sign of its offset: in a URL, + is written %2B")
	default:
		return 0, errTime
	}
}
