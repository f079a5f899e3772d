package delivery

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	attempts                      *prometheus.CounterVec
	duration                      prometheus.Histogram
	copies, unsent, dead, foreign prometheus.Counter
	reconnects, unverified        prometheus.Counter
	shortages                     prometheus.Counter
	subscriptions                 prometheus.Gauge
	unopened, sealedOld           prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer, g *gate) metrics {
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Namespace: "posthorn", Subsystem: "delivery", Name: name, Help: help})
		reg.MustRegister(c)
		return c
	}
	m := metrics{
		attempts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: "posthorn", Subsystem: "delivery", Name: "attempts_total", Help: "HTTP requests made, by how they ended.",
		}, []string{"class"}),
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: "posthorn", Subsystem: "delivery", Name: "attempt_seconds", Help: "How long the requests took.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2.5, 12),
		}),
		copies:  counter("copies_total", "Messages dropped because the ledger had their attempt already."),
		unsent:  counter("unsent_retries_total", "Retries that the broker did not take and the sweeper will send."),
		dead:    counter("dead_total", "Deliveries that died."),
		foreign: counter("foreign_total", "Messages parked or dropped because Posthorn did not write them, or not for that subscription."),
		unverified: counter("unverified_total",
			"Messages without a right signature: forged, from before messages were signed, or signed with another POSTHORN_SECRET_KEY."),
		reconnects: counter("reconnects_total", "Requests made again within their attempt because a kept connection ended before a response."),
		shortages:  counter("shortage_total", "Requests that wait because this machine was short of files, ports or memory; none counts as an attempt."),
		subscriptions: prometheus.NewGauge(prometheus.GaugeOpts{
			Namespace: "posthorn", Subsystem: "delivery", Name: "subscriptions", Help: "Subscriptions being served.",
		}),
	}
	m.unopened = prometheus.NewGauge(prometheus.GaugeOpts{
		Namespace: "posthorn", Subsystem: "delivery", Name: "unopened_subscriptions",
		Help: "Active subscriptions that are not served because their key is not in POSTHORN_SECRET_KEY.",
	})
	m.sealedOld = prometheus.NewGauge(prometheus.GaugeOpts{
		Namespace: "posthorn", Subsystem: "delivery", Name: "old_key_subscriptions",
		Help: "Subscriptions whose secret another key than the first of POSTHORN_SECRET_KEY has sealed: posthorn secrets reseal.",
	})
	reg.MustRegister(m.attempts, m.duration, m.subscriptions, m.unopened, m.sealedOld)
	for name, gauge := range map[string]struct {
		help  string
		value func() float64
	}{
		"requests_in_flight": {"Requests to subscribers in flight.", func() float64 { n, _ := g.counts(); return float64(n) }},
		"requests_waiting":   {"Requests that wait for the process to have fewer in flight.", func() float64 { _, n := g.counts(); return float64(n) }},
		"requests_max":       {"Requests that may be in flight.", func() float64 { return float64(g.capacity) }},
	} {
		reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Namespace: "posthorn", Subsystem: "delivery", Name: name, Help: gauge.help,
		}, gauge.value))
	}
	return m
}
