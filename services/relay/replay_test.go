package relay

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestTheDurationOfStepsDoesNotSlowAReplay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const rate = 50
		start, due := time.Now(), time.Time{}
		wait := func(d time.Duration) { <-time.After(d) }
		for step := range 100 {
			wait(time.Until(due))
			wait(time.Duration(step%7) * 20 * time.Millisecond) // the step's duration
			due = replayDue(due, replayPause(rate, replayRows(rate)))
		}
		wait(time.Until(due))
		if took := time.Since(start); took < 20*time.Second || took > 20*time.Second+200*time.Millisecond {
			t.Errorf("1,000 events at 50 a second took %v", took)
		}

		// After a long pause there is no burst.
		wait(time.Minute)
		if due = replayDue(due, 200*time.Millisecond); time.Until(due) != 200*time.Millisecond {
			t.Errorf("due in %v after a minute, want 200ms", time.Until(due))
		}
	})
}
