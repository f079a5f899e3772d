package bench

import (
	"bytes"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/plotutil"
	"gonum.org/v1/plot/vg"
)

// curve is a plot of a scenario's points.
type curve struct {
	scenario, name, title, x, y string
	series                      []string
	logX, logY                  bool
}

func curves() []curve {
	return []curve{
		{
			scenario: "curve-subscriptions", name: "subscriptions", title: "Deliveries a second",
			x: "subscriptions that want every event", y: "deliveries/s", series: []string{deliveredSeries}, logX: true,
		},
		{
			scenario: "curve-subscriptions", name: "cpu", title: "CPU time of Posthorn, Postgres and RabbitMQ for a delivery",
			x: "subscriptions that want every event", y: "ms", series: []string{cpuSeries}, logX: true,
		},
		{
			scenario: "curve-log", name: "log", title: "Rates of a burst over the length of the log",
			x: "events in the log", y: "events/s", series: []string{ingestSeries, deliveredSeries},
		},
		{
			scenario: "curve-rate", name: "latency", title: "Latency from the request to the receiver",
			x: "events/s offered", y: "ms", series: []string{"p50", "p99"}, logX: true, logY: true,
		},
	}
}

// file returns the plot's file name next to a document.
func (c curve) file(document string) string {
	return strings.TrimSuffix(document, filepath.Ext(document)) + "-" + c.name + ".svg"
}

// Plots returns the curves that have results as SVG, by the file name that the
// document of the given name refers to.
func (r *Report) Plots(document string) (map[string][]byte, error) {
	plots := map[string][]byte{}
	for _, c := range curves() {
		i := slices.IndexFunc(r.Results, func(o Result) bool { return o.Scenario == c.scenario && len(o.Runs) > 0 })
		if i < 0 {
			continue
		}
		svg, err := c.draw(r.Results[i].rows())
		if err != nil {
			return nil, fmt.Errorf("draw %s: %w", c.name, err)
		}
		plots[c.file(document)] = svg
	}
	return plots, nil
}

func (c curve) draw(rows []row) ([]byte, error) {
	p := plot.New()
	p.Title.Text, p.X.Label.Text, p.Y.Label.Text = c.title, c.x, c.y
	p.Add(plotter.NewGrid())
	p.Legend.Top, p.Legend.Left, p.Legend.Padding = true, true, vg.Points(4)
	var lines []any
	for _, name := range c.series {
		var points plotter.XYs
		for _, row := range rows {
			if row.Series == name {
				points = append(points, plotter.XY{X: row.X, Y: row.Value})
			}
		}
		if len(c.series) > 1 {
			lines = append(lines, name) // in the legend
		}
		lines = append(lines, points)
	}
	if err := plotutil.AddLinePoints(p, lines...); err != nil {
		return nil, err
	}
	if c.logX {
		p.X.Scale, p.X.Tick.Marker = plot.LogScale{}, plot.LogTicks{Prec: -1}
	}
	p.Y.Min = 0
	if c.logY {
		p.Y.Min = 1
		p.Y.Scale, p.Y.Tick.Marker = plot.LogScale{}, plot.LogTicks{Prec: -1}
	}
	w, err := p.WriterTo(16*vg.Centimeter, 9*vg.Centimeter, "svg")
	if err != nil {
		return nil, err
	}
	var svg bytes.Buffer
	if _, err := w.WriteTo(&svg); err != nil {
		return nil, err
	}
	return svg.Bytes(), nil
}
