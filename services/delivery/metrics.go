package delivery

import (
	"github.com/prometheus/client_golang/prometheus"

	"posthorn/services/internal/telemetry"
)

type metrics struct {
	attempts                      *prometheus.CounterVec
	duration                      prometheus.Histogram
	copies, unsent, dead, foreign prometheus.Counter
	reconnects, unverified        prometheus.Counter
	shortages                     prometheus.Counter
	subscriptions, further        prometheus.Gauge
	unopened, sealedOld           prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer, g *gate) metrics {
	m := telemetry.Of(reg, "delivery")
	m.GaugeFunc("requests_in_flight", "Requests to subscribers in flight.", func() float64 { n, _ := g.counts(); return float64(n) })
	m.GaugeFunc("requests_waiting", "Requests that wait for a slot of the process.", func() float64 { _, n := g.counts(); return float64(n) })
	m.GaugeFunc("requests_max", "Requests that may be in flight.", func() float64 { return float64(g.capacity) })
	return metrics{
		attempts: m.Counters("attempts_total", "HTTP requests made, by outcome.", "class"),
		duration: m.Histogram("attempt_seconds", "Duration of the requests.", prometheus.ExponentialBuckets(0.001, 2.5, 12)),
		copies:   m.Counter("copies_total", "Messages dropped because the ledger already had their attempt."),
		unsent:   m.Counter("unsent_retries_total", "Retries that the broker did not accept and the sweeper will send."),
		dead:     m.Counter("dead_total", "Deliveries that died."),
		foreign:  m.Counter("foreign_total", "Messages parked or dropped because Posthorn did not write them, or wrote them for another subscription."),
		unverified: m.Counter("unverified_total",
			"Messages without a valid signature: forged, from before messages were signed, or signed with another POSTHORN_SECRET_KEY."),
		reconnects:    m.Counter("reconnects_total", "Requests repeated within their attempt because a kept-alive connection ended before a response."),
		shortages:     m.Counter("shortage_total", "Requests that wait because this machine was short of files, ports or memory; none counts as an attempt."),
		subscriptions: m.Gauge("subscriptions", "Subscriptions being served."),
		further:       m.Gauge("window_messages", "Messages in flight that busy subscriptions may have in addition."),
		unopened: m.Gauge("unopened_subscriptions",
			"Active subscriptions that are not served because their key is not in POSTHORN_SECRET_KEY."),
		sealedOld: m.Gauge("old_key_subscriptions",
			"Subscriptions whose secret is not sealed with the first key of POSTHORN_SECRET_KEY: posthorn secrets reseal."),
	}
}
