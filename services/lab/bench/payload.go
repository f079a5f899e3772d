package bench

import (
	"bytes"
	"strconv"
	"strings"
	"time"
)

// payloadBytes is the approximate length of an event's JSON.
const payloadBytes = 300

// The prefixes of the fields that the receiver looks for in a body.
const (
	numberField = `"benchNumber":`
	startField  = `"benchStart":`
	photoField  = `"photoId":"`
)

// appendEvent appends the JSON of an event for POST /events. number is unique,
// and below the number of events of its scenario; start is when its request was
// due.
func appendEvent(dst []byte, eventType string, number int, start time.Time) []byte {
	from := len(dst)
	dst = append(dst, `{"type":"`...)
	dst = append(dst, eventType...)
	dst = append(dst, `","subject":"order/`...)
	dst = strconv.AppendInt(dst, int64(number), 10)
	dst = append(dst, `","data":`...)
	dst = appendData(dst, number, start, payloadBytes-(len(dst)-from)-1)
	return append(dst, '}')
}

// appendData appends the event's data, filled up to size bytes.
func appendData(dst []byte, number int, start time.Time, size int) []byte {
	from := len(dst)
	dst = append(dst, '{')
	dst = append(dst, numberField...)
	dst = strconv.AppendInt(dst, int64(number), 10)
	dst = append(dst, ',')
	dst = append(dst, startField...)
	dst = strconv.AppendInt(dst, start.UnixNano(), 10)
	dst = append(dst, `,"note":"`...)
	if fill := size - (len(dst) - from) - len(`"}`); fill > 0 {
		dst = append(dst, strings.Repeat("Some text of no interest. ", fill/26+1)[:fill]...)
	}
	return append(dst, `"}`...)
}

// readBody finds the values written by appendData, or by the name of a photo.
func readBody(body []byte) (number int, start time.Time, ok bool) {
	n, rest, ok := readInt(body, numberField)
	separator := startField
	if !ok {
		if n, rest, ok = readInt(body, photoField); !ok {
			return 0, time.Time{}, false
		}
		separator = "-"
	}
	ns, _, ok := readInt(rest, separator)
	return int(n), time.Unix(0, ns), ok
}

// readInt reads the digits that follow the field.
func readInt(body []byte, field string) (n int64, rest []byte, ok bool) {
	_, rest, found := bytes.Cut(body, []byte(field))
	if !found {
		return 0, nil, false
	}
	for len(rest) > 0 && rest[0] >= '0' && rest[0] <= '9' {
		n, rest, ok = n*10+int64(rest[0]-'0'), rest[1:], true
	}
	return n, rest, ok
}
