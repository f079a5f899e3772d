package eventlog

import (
	"fmt"
	"time"
)

// instant scans a time of the log. It accepts any time of Postgres, since a
// producer may have written one: the infinities, the years before Christ and
// those beyond 9999. A time that RFC 3339 cannot express becomes the nearest
// one that it can, and problem says so.
type instant struct {
	time.Time
	problem string
}

// Scan implements sql.Scanner.
func (i *instant) Scan(value any) error {
	i.problem = ""
	switch v := value.(type) {
	case time.Time:
		i.Time = v
	case []byte: // the driver's value for infinity
		return i.Scan(string(v))
	case string:
		if i.Time, i.problem = lastInstant(), "is "+v; v == "-infinity" {
			i.Time = firstInstant()
		}
		return nil
	default:
		return fmt.Errorf("read time: unexpected type %T", value)
	}
	switch year := i.UTC().Year(); {
	case year < 1:
		i.Time, i.problem = firstInstant(), "lies before the year 1"
	case year > 9999:
		i.Time, i.problem = lastInstant(), "lies after the year 9999"
	}
	return nil
}

func firstInstant() time.Time { return time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC) }

// lastInstant is to the microsecond, as Postgres keeps times.
func lastInstant() time.Time { return time.Date(9999, 12, 31, 23, 59, 59, 999_999_000, time.UTC) }
