package postgres

import (
	"fmt"
	"time"
)

// The times that RFC 3339 can write and Go can compare. Postgres knows more:
// the infinities, the years before Christ and those beyond 9999.
var (
	earliest = time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC)
	latest   = time.Date(9999, 12, 31, 23, 59, 59, 999_999_000, time.UTC)
)

// instant reads a time of the log. It is total, since a producer may have
// written any time: one that cannot be shown becomes the nearest that can, and
// problem says so.
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
	case []byte: // what the driver makes of infinity
		return i.Scan(string(v))
	case string:
		if i.Time = latest; v == "-infinity" {
			i.Time = earliest
		}
		i.problem = "is " + v
		return nil
	default:
		return fmt.Errorf("read time: %T is none", value)
	}
	switch utc := i.Time.UTC(); {
	case utc.Before(earliest):
		i.Time, i.problem = earliest, "lies before the year 1"
	case utc.After(latest):
		i.Time, i.problem = latest, "lies after the year 9999"
	}
	return nil
}
