// Package matching decides which event types a set of patterns selects.
//
// A Matcher decides. SQL that scans a log narrows it first with the expressions
// of PatternExpressions, which select every type that a Matcher does (they are
// tested against each other).
package matching

import "posthorn/events"

// Matcher is a set of patterns. The zero value selects nothing.
type Matcher struct {
	exact map[string]bool
	wild  []events.Pattern
}

// New returns the Matcher of patterns.
func New(patterns []events.Pattern) Matcher {
	m := Matcher{}
	for _, p := range patterns {
		if !p.Exact() {
			m.wild = append(m.wild, p)
			continue
		}
		if m.exact == nil {
			m.exact = make(map[string]bool, len(patterns))
		}
		m.exact[string(p)] = true
	}
	return m
}

// Match reports whether one of the patterns selects the event type.
func (m Matcher) Match(eventType string) bool {
	if m.exact[eventType] {
		return true
	}
	for _, p := range m.wild {
		if p.Match(eventType) {
			return true
		}
	}
	return false
}
