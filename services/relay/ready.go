package relay

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"posthorn/services/internal/broker"
	"posthorn/services/internal/postgres"
	"posthorn/services/internal/readiness"
)

// trouble is what keeps the relay from forwarding.
type trouble struct {
	reason string // public
	detail string // for the log
}

// interrupted records why the relay cannot forward, and logs it once as long as
// it stays the same.
func (r *Relay) interrupted(err error) {
	now := &trouble{
		reason: cmp.Or(postgres.Describe(err), broker.Describe(err), "cannot forward: see the relay's log"),
		detail: err.Error(),
	}
	if old := r.trouble.Swap(now); old == nil || old.detail != now.detail {
		r.logger.Warn("relay cannot forward", "error", err)
	}
}

// Ready reports what keeps the relay from forwarding, or would keep it if it
// led. A standby that can reach Postgres and RabbitMQ is ready.
func (r *Relay) Ready(context.Context) readiness.Report {
	var report readiness.Report
	if t := r.trouble.Load(); t != nil {
		report.Problems = append(report.Problems, t.reason)
	}
	for _, err := range []error{r.publisher.Ready(), r.topology.Ready()} {
		if reason := broker.Describe(err); reason != "" && !slices.Contains(report.Problems, reason) {
			report.Problems = append(report.Problems, reason)
		}
	}
	if n := r.quarantined.Load(); n > 0 {
		report.Warnings = append(report.Warnings, fmt.Sprintf("%d records are in quarantine: posthorn outbox quarantine list", n))
	}
	return report
}
