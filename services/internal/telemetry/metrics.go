// Package telemetry creates metrics with uniform names.
//
// It promises names of the form posthorn_<part>_<name>. A duplicate name is a
// bug, and panics at startup.
package telemetry

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// Metrics creates and registers the metrics of one part.
type Metrics struct{ factory promauto.Factory }

// Of returns the Metrics of a part, such as "relay".
func Of(registry prometheus.Registerer, part string) Metrics {
	return Metrics{promauto.With(prometheus.WrapRegistererWithPrefix("posthorn_"+part+"_", registry))}
}

// Counter creates a counter.
func (m Metrics) Counter(name, help string) prometheus.Counter {
	return m.factory.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
}

// Counters creates counters with labels.
func (m Metrics) Counters(name, help string, labels ...string) *prometheus.CounterVec {
	return m.factory.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
}

// Gauge creates a gauge.
func (m Metrics) Gauge(name, help string) prometheus.Gauge {
	return m.factory.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
}

// GaugeFunc creates a gauge whose value is computed on each scrape.
func (m Metrics) GaugeFunc(name, help string, value func() float64) {
	m.factory.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value)
}

// Histogram creates a histogram with these upper bounds.
func (m Metrics) Histogram(name, help string, buckets []float64) prometheus.Histogram {
	return m.factory.NewHistogram(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets})
}

// Histograms creates histograms with labels.
func (m Metrics) Histograms(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
	return m.factory.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}, labels)
}
