package bench

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"
)

func TestCurvesAreDrawnFromWhatThereIs(t *testing.T) {
	t.Parallel()
	r := &Report{}
	if plots, err := r.Plots("performance.md"); err != nil || len(plots) > 0 {
		t.Errorf("without results: %d plots, %v", len(plots), err)
	}
	run := func(slow float64) []Figure {
		var figures []Figure
		for _, x := range []float64{100, 1000, 4000} {
			figures = append(figures,
				Figure{Name: "p50, " + number(x), Series: "p50", X: x, Value: 3 * slow},
				Figure{Name: "p99, " + number(x), Series: "p99", X: x, Value: 20 * slow})
		}
		return figures
	}
	r.Put(Result{Scenario: "curve-rate", Runs: [][]Figure{run(1), run(2)}})
	plots, err := r.Plots("performance.md")
	if err != nil {
		t.Fatal(err)
	}
	svg := plots["performance-latency.svg"]
	if len(plots) != 1 || svg == nil {
		t.Fatalf("%d plots", len(plots))
	}
	decoder := xml.NewDecoder(bytes.NewReader(svg))
	for {
		if _, err := decoder.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("the plot is not well-formed: %v", err)
		}
	}
	for _, text := range []string{"p50", "p99", "events/s offered", "1000"} {
		if !strings.Contains(string(svg), text) {
			t.Errorf("the plot has no %q", text)
		}
	}
	if document := r.Document("performance.md", ""); !strings.Contains(document, "](performance-latency.svg)") || strings.Contains(document, "performance-log.svg") {
		t.Error("the document does not show the plot that there is, and no other")
	}
}
