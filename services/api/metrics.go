package api

import (
	"errors"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"posthorn/services/internal/telemetry"
)

type metrics struct {
	requests  *prometheus.CounterVec
	latency   *prometheus.HistogramVec
	accepted  *prometheus.CounterVec
	groupSize *prometheus.HistogramVec
	// unauthorized counts requests without the right key.
	unauthorized *prometheus.CounterVec

	// Looking a series up by its labels costs more than counting, so the few
	// series are cached.
	known sync.Map // requestKey -> requestSeries
}

type requestKey struct {
	method, route string
	status        int
}

type requestSeries struct {
	count   prometheus.Counter
	latency prometheus.Observer
}

func newMetrics(registry prometheus.Registerer) *metrics {
	m := telemetry.Of(registry, "api")
	return &metrics{
		requests: m.Counters("requests_total", "HTTP requests answered.", "method", "route", "status"),
		latency: m.Histograms("request_duration_seconds", "Time to answer an HTTP request.",
			[]float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}, "method", "route"),
		accepted:  m.Counters("events_total", "Events answered with 2xx, by whether they were new in the log.", "outcome"),
		groupSize: m.Histograms("commit_events", "Events that shared one commit.", prometheus.ExponentialBuckets(1, 2, 10), "group"),
		unauthorized: m.Counters("unauthorized_total",
			"Requests without the right key, by whether it was missing, wrong, or wrong too often (throttled).", "reason"),
	}
}

func (m *metrics) request(method, route string, status int, took time.Duration) {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete:
	default:
		method = "other" // the client chooses it, and each would be a series
	}
	key := requestKey{method: method, route: route, status: status}
	series, ok := m.known.Load(key)
	if !ok {
		series, _ = m.known.LoadOrStore(key, requestSeries{
			count:   m.requests.WithLabelValues(method, route, strconv.Itoa(status)),
			latency: m.latency.WithLabelValues(method, route),
		})
	}
	s, ok := series.(requestSeries)
	if !ok {
		panic(errors.New("metrics: a foreign value in the cache"))
	}
	s.count.Inc()
	s.latency.Observe(took.Seconds())
}
