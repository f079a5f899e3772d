package ledger

// Cause is why a delivery, or an attempt of it, is made.
type Cause string

// The causes. A delivery is never caused by a retry, only an attempt.
const (
	CauseLive    Cause = "live"    // a new event
	CauseRetry   Cause = "retry"   // an earlier attempt failed
	CauseReplay  Cause = "replay"  // past events are delivered again
	CauseRedrive Cause = "redrive" // a dead letter was put back to work
	CauseTest    Cause = "test"    // a subscription is tested
)
