package relay

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	published, returned, swept, foreign, replayed prometheus.Counter
	position, lag, leading                        prometheus.Gauge
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
	return metrics{
		published: counter("published_total", "Records of the outbox that the broker confirmed."),
		returned:  counter("returned_total", "Events that reached no queue although a subscription is owed them."),
		swept:     counter("swept_total", "Overdue deliveries that were sent again from the ledger."),
		replayed:  counter("replayed_total", "Deliveries that replays and redrives began anew."),
		foreign:   counter("foreign_queues_total", "Declarations refused because a queue exists with other arguments."),
		position:  gauge("position", "Position in the outbox up to which everything is forwarded."),
		lag:       gauge("lag_positions", "Positions of the log that are settled and not forwarded yet."),
		leading:   gauge("leading", "1 while this relay is the active one."),
	}
}
