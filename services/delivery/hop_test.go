package delivery

import (
	"math/rand/v2"
	"testing"
	"time"

	"pgregory.net/rapid"

	"posthorn/services/internal/broker"
	"posthorn/services/internal/retry"
)

func TestARetryIsNeverEarlierThanTheSubscriberAsked(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		step := time.Duration(rapid.IntRange(1, 24*60*60).Draw(t, "step")) * time.Second
		asked := time.Duration(rapid.IntRange(0, 24*60*60).Draw(t, "asked")) * time.Second
		wait, _ := retry.Schedule{step}.Next(1, asked, rand.Float64)
		var waited, rung time.Duration
		for left := wait; left > 0; waited += rung {
			rung, left = broker.Config{}.NextHop(left)
		}
		if waited < asked || waited > wait+time.Second {
			t.Fatalf("waited %v for %v in queues although %v was asked for", waited, wait, asked)
		}
	})
}
