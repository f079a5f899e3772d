package relay

import (
	"github.com/prometheus/client_golang/prometheus"

	"posthorn/services/internal/eventlog"
	"posthorn/services/internal/telemetry"
)

type metrics struct {
	published, returned, swept, resent, foreign, replayed prometheus.Counter
	position, lag, leading                                prometheus.Gauge
	setAside                                              *prometheus.CounterVec
	quarantined                                           prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) metrics {
	m := telemetry.Of(reg, "relay")
	setAside := m.Counters("set_aside_total",
		"Records that could not be forwarded: held for an operator, or rerouted around the exchange.", "status")
	for _, status := range []eventlog.QuarantineStatus{eventlog.Held, eventlog.Rerouted} {
		setAside.WithLabelValues(string(status))
	}
	return metrics{
		setAside:    setAside,
		quarantined: m.Gauge("quarantined", "Records in quarantine that no operator has reviewed yet, as known to the leading relay."),
		published:   m.Counter("published_total", "Records of the outbox that the broker confirmed."),
		returned:    m.Counter("returned_total", "Events that reached no queue although a subscription is owed them."),
		swept:       m.Counter("swept_total", "Overdue deliveries that were sent again from the ledger."),
		resent:      m.Counter("resent_total", "Deliveries that were sent again because the broker had lost their messages."),
		replayed:    m.Counter("replayed_total", "Runs that replays and redrives began."),
		foreign:     m.Counter("foreign_queues_total", "Declarations refused because a queue exists with other arguments."),
		position:    m.Gauge("position", "Position in the outbox up to which all records are forwarded."),
		lag:         m.Gauge("lag_positions", "Positions of the log that are settled but not forwarded yet."),
		leading:     m.Gauge("leading", "1 while this relay is the active one."),
	}
}
