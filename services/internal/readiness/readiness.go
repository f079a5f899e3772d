// Package readiness reports which parts of a process are ready, and why the
// others are not, for /readyz.
//
// It promises a response within Timeout, without any address, name or password:
// its readers need not be trusted. The parts' logs have the details. A process
// is ready when each part that counts is.
package readiness

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// Timeout is how long a check may take. A part that has not answered by then is
// not ready.
const Timeout = 3 * time.Second

// Report is the state that a part reports. Without problems it is ready;
// warnings are for an operator and do not affect readiness.
type Report struct {
	Problems []string
	Warnings []string
}

// Check asks a part. It ends with ctx.
type Check func(ctx context.Context) Report

// Parts are the parts of a process. Parts may be added during State.
type Parts struct {
	mu      sync.Mutex
	checks  map[string]Check
	counted map[string]bool
}

// Count selects the parts that decide the process' state; by default all do.
// The others are still shown.
func (p *Parts) Count(names ...string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.counted = map[string]bool{}
	for _, name := range names {
		p.counted[name] = true
	}
}

// Add adds a part.
func (p *Parts) Add(name string, check Check) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.checks == nil {
		p.checks = map[string]Check{}
	}
	p.checks[name] = check
}

// The states of a process and of a part.
const (
	Ready    = "ready"
	NotReady = "not ready"
)

// State is the response of /readyz.
type State struct {
	Status string `json:"status" enum:"ready,not ready" doc:"ready if every part that counts is"`
	// Reason says in one line why the process is not ready.
	Reason string               `json:"reason,omitempty" doc:"Why it is not ready"`
	Parts  map[string]PartState `json:"parts" doc:"Parts of this process"`
}

// PartState is the state of one part.
type PartState struct {
	Status   string   `json:"status" enum:"ready,not ready"`
	Counts   bool     `json:"counts" doc:"Whether the process is ready only if this part is"`
	Problems []string `json:"problems,omitempty" doc:"Conditions that keep the part from working"`
	Warnings []string `json:"warnings,omitempty" doc:"Conditions that an operator should look at"`
}

// State asks all parts at once.
func (p *Parts) State(ctx context.Context) State {
	ctx, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()
	p.mu.Lock()
	checks, counted := maps.Clone(p.checks), p.counted
	p.mu.Unlock()
	type answer struct {
		name   string
		report Report
	}
	answers := make(chan answer, len(checks))
	for name, check := range checks {
		go func() { answers <- answer{name, check(ctx)} }()
	}
	reports := make(map[string]Report, len(checks))
collect:
	for range checks {
		select {
		case a := <-answers:
			reports[a.name] = a.report
		case <-ctx.Done():
			break collect
		}
	}
	state := State{Status: Ready, Parts: make(map[string]PartState, len(checks))}
	var reasons []string
	for _, name := range slices.Sorted(maps.Keys(checks)) {
		report, answered := reports[name]
		if !answered {
			report.Problems = []string{"does not answer"}
		}
		part := PartState{Status: Ready, Counts: counted == nil || counted[name], Problems: report.Problems, Warnings: report.Warnings}
		if len(part.Problems) > 0 {
			part.Status = NotReady
			if part.Counts {
				state.Status = NotReady
				reasons = append(reasons, name+": "+strings.Join(part.Problems, "; "))
			}
		}
		state.Parts[name] = part
	}
	state.Reason = strings.Join(reasons, "; ")
	return state
}

// ServeHTTP responds with the State and 200, or 503 if the process is not ready.
func (p *Parts) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	state := p.State(r.Context())
	body, err := json.Marshal(state)
	if err != nil {
		http.Error(w, fmt.Sprintf("encode state: %v", err), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	if state.Status != Ready {
		w.Header().Set("Retry-After", "1")
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_, _ = w.Write(append(body, '\n')) // an error means that the client is gone
}
