package delivery

import (
	"testing"
	"time"

	"posthorn/services/internal/envelope"
	"posthorn/services/internal/ledger"
	"posthorn/services/internal/retry"
	"posthorn/services/internal/sender"
)

func TestOnlyAMessageThatCannotBeACopyIsFresh(t *testing.T) {
	t.Parallel()
	const limit = 15 * time.Second
	for name, c := range map[string]struct {
		change      func(e *envelope.Envelope)
		redelivered bool
		age         time.Duration
		fresh       bool
	}{
		"a live event":                           {func(*envelope.Envelope) {}, false, time.Second, true},
		"a test":                                 {func(e *envelope.Envelope) { e.Cause = ledger.CauseTest }, false, time.Second, true},
		"one that the broker redelivers":         {func(*envelope.Envelope) {}, true, time.Second, false},
		"one that a relay may have sent before":  {func(e *envelope.Envelope) { e.Suspect = true }, false, time.Second, false},
		"one that is old enough to be swept":     {func(*envelope.Envelope) {}, false, limit, false},
		"a retry":                                {func(e *envelope.Envelope) { e.Attempts = 1 }, false, time.Second, false},
		"a replay":                               {func(e *envelope.Envelope) { e.Cause, e.Run = ledger.CauseReplay, 1 }, false, time.Second, false},
		"a first run with the cause of a replay": {func(e *envelope.Envelope) { e.Cause = ledger.CauseReplay }, false, time.Second, false},
		"a run beyond the first":                 {func(e *envelope.Envelope) { e.Run = 1 }, false, time.Second, false},
	} {
		e := envelope.Envelope{Position: 1, Cause: ledger.CauseLive}
		c.change(&e)
		if got := fresh(e, c.redelivered, c.age, limit); got != c.fresh {
			t.Errorf("%s: fresh = %t", name, got)
		}
	}
}

func TestVerdictOnAResult(t *testing.T) {
	t.Parallel()
	half := func() float64 { return 0.5 } // no jitter
	schedule := retry.Schedule{5 * time.Second, time.Minute}
	for name, c := range map[string]struct {
		result   sender.Result
		number   int
		schedule retry.Schedule
		status   ledger.Status
		wait     time.Duration
	}{
		"2xx":                              {sender.Result{Class: sender.ClassOK, Status: 204}, 1, schedule, ledger.Delivered, 0},
		"2xx with the last attempt":        {sender.Result{Class: sender.ClassOK, Status: 200}, 3, schedule, ledger.Delivered, 0},
		"a first failure":                  {sender.Result{Class: sender.ClassStatus, Status: 500}, 1, schedule, ledger.Retrying, 5 * time.Second},
		"a second failure":                 {sender.Result{Class: sender.ClassTimeout}, 2, schedule, ledger.Retrying, time.Minute},
		"the last failure":                 {sender.Result{Class: sender.ClassConnect}, 3, schedule, ledger.Dead, 0},
		"a failure without retries":        {sender.Result{Class: sender.ClassAddress}, 1, retry.Schedule{}, ledger.Dead, 0},
		"a failure that asks for more":     {sender.Result{Class: sender.ClassStatus, Status: 503, RetryAfter: time.Hour}, 1, schedule, ledger.Retrying, time.Hour},
		"a failure that asks for less":     {sender.Result{Class: sender.ClassStatus, Status: 429, RetryAfter: time.Second}, 2, schedule, ledger.Retrying, time.Minute},
		"a last failure that asks to wait": {sender.Result{Class: sender.ClassStatus, Status: 503, RetryAfter: time.Hour}, 3, schedule, ledger.Dead, 0},
		"a 2xx that was not complete":      {sender.Result{Class: sender.ClassProtocol, Status: 200}, 1, schedule, ledger.Retrying, 5 * time.Second},
	} {
		status, wait := verdict(c.result, c.number, c.schedule, half)
		if status != c.status || wait != c.wait {
			t.Errorf("%s: %s after %v, want %s after %v", name, status, wait, c.status, c.wait)
		}
	}
}

func TestAnAttemptAfterTheFirstIsARetry(t *testing.T) {
	t.Parallel()
	for attempts, cause := range map[int]ledger.Cause{0: ledger.CauseReplay, 1: ledger.CauseRetry, 7: ledger.CauseRetry} {
		a := attemptOf("sub_x", "e", envelope.Envelope{Position: 3, Run: 2, Attempts: attempts, Cause: ledger.CauseReplay}, sender.Result{Status: 500})
		if a.Cause != cause || a.Number != attempts+1 || a.Run != 2 || a.Position != 3 {
			t.Errorf("after %d attempts: %+v", attempts, a)
		}
	}
}
