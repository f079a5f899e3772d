package api

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	requests  *prometheus.CounterVec
	latency   *prometheus.HistogramVec
	accepted  *prometheus.CounterVec
	groupSize *prometheus.HistogramVec
	// unauthorized are requests that came without the right key.
	unauthorized *prometheus.CounterVec

	// Looking a series up by its labels costs more than counting; the few
	// that there are are kept.
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

func newMetrics(registry *prometheus.Registry) (*metrics, error) {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "posthorn_api_requests_total", Help: "HTTP requests answered.",
		}, []string{"method", "route", "status"}),
		latency: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "posthorn_api_request_duration_seconds", Help: "Time to answer an HTTP request.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}, []string{"method", "route"}),
		accepted: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "posthorn_api_events_total", Help: "Events answered with 2xx, by whether they were new in the log.",
		}, []string{"outcome"}),
		groupSize: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "posthorn_api_commit_events", Help: "Events that shared one commit.",
			Buckets: prometheus.ExponentialBuckets(1, 2, 10),
		}, []string{"group"}),
	}
	m.unauthorized = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "posthorn_api_unauthorized_total", Help: "Requests without the right key, by whether it was missing, wrong, or wrong too often (throttled).",
	}, []string{"reason"})
	for _, c := range []prometheus.Collector{m.unauthorized, m.requests, m.latency, m.accepted, m.groupSize} {
		if err := registry.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	return m, nil
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
