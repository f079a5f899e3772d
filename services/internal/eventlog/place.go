package eventlog

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"posthorn/events"
	"posthorn/services/internal/postgres"
)

// ErrBadPlace is wrapped by ParsePlace for text that names no place in the log.
var ErrBadPlace = errors.New(`want a position, a time such as 2026-01-31T08:00:00Z, "beginning" or "now"`)

// Place is a place in the log, as a user names it. The zero value is none.
type Place struct {
	Position  int64
	Time      time.Time
	Beginning bool
	Now       bool
}

// ParsePlace reads a position, an RFC 3339 time, "beginning" or "now".
func ParsePlace(text string) (Place, error) {
	switch text = strings.TrimSpace(text); text {
	case "":
		return Place{}, nil
	case "beginning":
		return Place{Beginning: true}, nil
	case "now":
		return Place{Now: true}, nil
	}
	if position, err := strconv.ParseInt(text, 10, 64); err == nil {
		if position < 0 {
			return Place{}, ErrBadPlace
		}
		return Place{Position: position, Beginning: position == 0}, nil
	}
	at, err := events.ParseTime(text)
	if err != nil {
		if len(text) > 10 && text[4] == '-' { // intended as a time
			return Place{}, fmt.Errorf("%w: %w", ErrBadPlace, err)
		}
		return Place{}, ErrBadPlace
	}
	return Place{Time: at}, nil
}

// UnmarshalText is ParsePlace, for command lines.
func (p *Place) UnmarshalText(text []byte) (err error) {
	*p, err = ParsePlace(string(text))
	return err
}

// IsZero reports whether the place is unset.
func (p Place) IsZero() bool { return p == Place{} }

// After returns the position after which a stretch from the place begins. Times
// follow the positions only approximately, so a caller that selects by time
// must also compare the times of the rows.
func (p Place) After(ctx context.Context, q postgres.Queryer, horizon int64) (int64, error) {
	switch {
	case p.Now:
		return horizon, nil
	case !p.Time.IsZero():
		from, err := positionSince(ctx, q, p.Time.Add(-clockSkew))
		if err != nil {
			return 0, fmt.Errorf("find the beginning: %w", err)
		}
		return min(from-1, horizon), nil
	default:
		return min(max(p.Position-1, 0), horizon), nil
	}
}

// through returns the last position of a stretch that ends at the place,
// including a position and excluding a time.
func (p Place) through(ctx context.Context, q postgres.Queryer, horizon int64) (int64, error) {
	switch {
	case p.Beginning:
		return 0, nil
	case !p.Time.IsZero():
		to, err := positionSince(ctx, q, p.Time.Add(clockSkew))
		if err != nil {
			return 0, fmt.Errorf("find the end: %w", err)
		}
		return min(to-1, horizon), nil
	case p.Position > 0:
		return min(p.Position, horizon), nil
	default:
		return horizon, nil
	}
}
