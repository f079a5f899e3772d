package delivery

import (
	"testing"
	"time"
)

func TestAWindowFollowsFromRateAndTime(t *testing.T) {
	t.Parallel()
	const look, lag = 200 * time.Millisecond, 30 * time.Millisecond
	for name, c := range map[string]struct {
		finished, bytes int64
		lag             time.Duration
		further, left   int
		want            int
	}{
		"idle":                              {0, 0, lag, 0, furtherInAll, 0},
		"slow":                              {10, 3_000, lag, 0, furtherInAll, 0},
		"850 a second, as ten busy ones":    {170, 51_000, lag, 0, furtherInAll, 0},
		"4,000 a second":                    {800, 240_000, lag, 0, furtherInAll, 192},
		"8,000 a second":                    {1600, 480_000, lag, 192, furtherInAll, 448},
		"100,000 a second":                  {20_000, 6_000_000, lag, 960, furtherInAll, furthest},
		"a ledger that takes longer":        {800, 240_000, 4 * lag, 0, furtherInAll, 960},
		"bodies of a megabyte":              {800, 800 << 20, lag, 0, furtherInAll, 16},
		"the others have nearly everything": {800, 240_000, lag, 0, 50, 50},
		"the others have everything":        {1600, 480_000, lag, 192, 0, 192},
	} {
		w := window{further: c.further}
		if got := w.next(c.finished, c.bytes, look, c.lag, c.left); got != c.want {
			t.Errorf("%s: further %d, want %d", name, got, c.want)
		}
	}
}

func TestAWindowDoesNotShrinkAtOnce(t *testing.T) {
	t.Parallel()
	w := window{further: 448}
	for look := range shrinkAfter - 1 {
		if w.further = w.next(0, 0, time.Second, time.Second, furtherInAll); w.further != 448 {
			t.Fatalf("look %d: %d", look, w.further)
		}
	}
	w.further = w.next(1600, 480_000, 200*time.Millisecond, 30*time.Millisecond, furtherInAll)
	for range shrinkAfter - 1 {
		w.further = w.next(0, 0, time.Second, time.Second, furtherInAll)
	}
	if w.further != 448 {
		t.Errorf("after a busy look: %d", w.further)
	}
	if w.further = w.next(0, 0, time.Second, time.Second, furtherInAll); w.further != 0 {
		t.Errorf("after %d low polls: %d", shrinkAfter, w.further)
	}
}

func TestTheShortestTimeIsForgottenAfterAWhile(t *testing.T) {
	t.Parallel()
	var s shortest
	if got := s.look(); got != 0 {
		t.Errorf("nothing was observed: %v", got)
	}
	for _, d := range []time.Duration{5, 3, 4} {
		s.observe(d)
	}
	for look := range lagKept {
		if got := s.look(); got != 3 {
			t.Errorf("look %d: %v, want 3", look, got)
		}
	}
	s.observe(9)
	if got := s.look(); got != 9 {
		t.Errorf("at last: %v, want 9", got)
	}
}
