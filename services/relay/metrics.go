package relay

import (
	"github.com/prometheus/client_golang/prometheus"

	"posthorn/services/internal/eventlog"
)

type metrics struct {
	published, returned, swept, foreign, replayed prometheus.Counter
	position, lag, leading                        prometheus.Gauge
	setAside                                      *prometheus.CounterVec
	quarantined                                   prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) metrics {
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Namespace: "posthorn", Subsystem: "relay", Name: name, Help: help})
		reg.MustRegister(c)
		return c
	}
	gauge := func(name, help string) prometheus.Gauge {
		g := prometheus.NewGauge(prometheus.GaugeOpts{Namespace: "posthorn", Subsystem: "relay", Name: name, Help: help})
		reg.MustRegister(g)
		return g
	}
	setAside := prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: "posthorn", Subsystem: "relay", Name: "set_aside_total",
		Help: "Records that could not be forwarded: held, for an operator to deal with, or rerouted around the exchange.",
	}, []string{"status"})
	reg.MustRegister(setAside)
	for _, status := range []eventlog.QuarantineStatus{eventlog.Held, eventlog.Rerouted} {
		setAside.WithLabelValues(string(status))
	}
	return metrics{
		setAside:    setAside,
		quarantined: gauge("quarantined", "Records in quarantine that an operator has yet to look at, as the leading relay knows."),
		published:   counter("published_total", "Records of the outbox that the broker confirmed."),
		returned:    counter("returned_total", "Events that reached no queue although a subscription is owed them."),
		swept:       counter("swept_total", "Overdue deliveries that were sent again from the ledger."),
		replayed:    counter("replayed_total", "Deliveries that replays and redrives began anew."),
		foreign:     counter("foreign_queues_total", "Declarations refused because a queue exists with other arguments."),
		position:    gauge("position", "Position in the outbox up to which everything is forwarded."),
		lag:         gauge("lag_positions", "Positions of the log that are settled and not forwarded yet."),
		leading:     gauge("leading", "1 while this relay is the active one."),
	}
}
