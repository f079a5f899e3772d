package delivery

import (
	"testing"
	"time"
)

func TestARefusalIsLoggedOncePerReason(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_700_000_000, 0)
	var r refusals
	for _, c := range []struct {
		host, reason string
		after        time.Duration
		news         bool
	}{
		{"a", "blocked", 0, true},
		{"a", "blocked", time.Minute, false},
		{"a", "dns", 0, true},
		{"a", "blocked", 0, false}, // a name that alternates between addresses
		{"a", "dns", 0, false},
		{"b", "dns", 0, true},
		{"b", "dns", 59 * time.Minute, false},
		{"b", "dns", time.Minute, true},
		{"b", "dns", time.Second, false},
	} {
		now = now.Add(c.after)
		if got := r.news(c.host, c.reason, now); got != c.news {
			t.Errorf("%+v: %t", c, got)
		}
	}
}
