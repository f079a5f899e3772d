package delivery

import (
	"time"

	"posthorn/services/internal/envelope"
	"posthorn/services/internal/ledger"
	"posthorn/services/internal/retry"
	"posthorn/services/internal/sender"
	"posthorn/services/internal/subscription"
)

// fresh reports whether a message must be the first for its delivery: no attempt
// was made, the broker has not delivered it before, the relay has not sent it
// before, and it is too recent to have been swept.
func fresh(e envelope.Envelope, redelivered bool, age, limit time.Duration) bool {
	return e.Run == 0 && e.Attempts == 0 && !e.Suspect && !redelivered &&
		(e.Cause == ledger.CauseLive || e.Cause == ledger.CauseTest) && age < limit
}

// attemptOf returns an attempt as the ledger stores it, without its verdict.
func attemptOf(id subscription.ID, event string, e envelope.Envelope, result sender.Result) *ledger.Attempt {
	attempt := &ledger.Attempt{
		Position: e.Position, Subscription: id, EventID: event, Run: e.Run, Number: e.Attempts + 1, Cause: e.Cause,
		StartedAt: result.StartedAt, Duration: result.Duration,
		HTTPStatus: result.Status, ErrorClass: string(result.Class), Error: result.Error,
		RequestHeaders: result.RequestHeaders, ResponseHeaders: result.ResponseHeaders, ResponseBody: result.ResponseBody,
	}
	if e.Attempts > 0 {
		attempt.Cause = ledger.CauseRetry
	}
	return attempt
}

// verdict decides from the result of an attempt the delivery's status, and for
// Retrying how long to wait. rnd is passed to retry.Schedule.Next.
func verdict(result sender.Result, number int, schedule retry.Schedule, rnd func() float64) (ledger.Status, time.Duration) {
	if result.OK() {
		return ledger.Delivered, 0
	}
	if delay, more := schedule.Next(number, result.RetryAfter, rnd); more {
		return ledger.Retrying, delay
	}
	return ledger.Dead, 0
}
