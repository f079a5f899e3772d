// Package telemetry makes metrics in the one form that Posthorn's have.
//
// It promises names of the form posthorn_<part>_<name>. A name that is taken
// twice is a fault of the program, and a panic at its start.
package telemetry

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// Metrics makes and registers the metrics of one part.
type Metrics struct{ factory promauto.Factory }

// Of returns what makes the metrics of a part, such as "relay".
func Of(registry prometheus.Registerer, part string) Metrics {
	return Metrics{promauto.With(prometheus.WrapRegistererWithPrefix("posthorn_"+part+"_", registry))}
}

// Counter makes a counter.
func (m Metrics) Counter(name, help string) prometheus.Counter {
	return m.factory.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
}

// Counters makes counters that labels tell apart.
func (m Metrics) Counters(name, help string, labels ...string) *prometheus.CounterVec {
	return m.factory.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
}

// Gauge makes a gauge.
func (m Metrics) Gauge(name, help string) prometheus.Gauge {
	return m.factory.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
}

// GaugeFunc makes a gauge that is asked for its value.
func (m Metrics) GaugeFunc(name, help string, value func() float64) {
	m.factory.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value)
}

// Histogram makes a histogram with these upper bounds.
func (m Metrics) Histogram(name, help string, buckets []float64) prometheus.Histogram {
	return m.factory.NewHistogram(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets})
}

// Histograms makes histograms that labels tell apart.
func (m Metrics) Histograms(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
	return m.factory.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}, labels)
}
