package matching

import (
	"cmp"
	"slices"

	"posthorn/events"
)

// Index finds which of many sets of patterns select an event type, as their
// Matchers would. The zero value is empty. It is not safe for concurrent use.
type Index[K cmp.Ordered] struct {
	sets  map[K][]events.Pattern
	exact map[string][]K
	wild  []wildcard[K]
	// answers caches the results of both until a set changes.
	answers map[string][]K
}

type wildcard[K any] struct {
	pattern events.Pattern
	key     K
}

// maxAnswers bounds the cache: callers choose the types.
const maxAnswers = 10_000

// Set replaces the patterns of a key; an empty list removes it.
func (x *Index[K]) Set(key K, patterns []events.Pattern) {
	if x.sets == nil {
		x.sets, x.exact, x.answers = map[K][]events.Pattern{}, map[string][]K{}, map[string][]K{}
	}
	x.remove(key)
	clear(x.answers)
	if len(patterns) == 0 {
		return
	}
	x.sets[key] = patterns
	for _, p := range patterns {
		if p.Exact() {
			x.exact[string(p)] = append(x.exact[string(p)], key)
		} else {
			x.wild = append(x.wild, wildcard[K]{p, key})
		}
	}
}

func (x *Index[K]) remove(key K) {
	patterns, ok := x.sets[key]
	if !ok {
		return
	}
	delete(x.sets, key)
	for _, p := range patterns {
		if !p.Exact() {
			continue
		}
		keys := slices.DeleteFunc(x.exact[string(p)], func(other K) bool { return other == key })
		if x.exact[string(p)] = keys; len(keys) == 0 {
			delete(x.exact, string(p))
		}
	}
	x.wild = slices.DeleteFunc(x.wild, func(w wildcard[K]) bool { return w.key == key })
}

// Len returns the number of keys with patterns.
func (x *Index[K]) Len() int { return len(x.sets) }

// Match returns the keys whose patterns select the event type, in order and each
// once. The caller must not change the slice.
func (x *Index[K]) Match(eventType string) []K {
	if known, ok := x.answers[eventType]; ok {
		return known
	}
	keys := slices.Clone(x.exact[eventType])
	for _, w := range x.wild {
		if w.pattern.Match(eventType) {
			keys = append(keys, w.key)
		}
	}
	slices.Sort(keys)
	keys = slices.Compact(keys)
	if len(x.answers) >= maxAnswers {
		clear(x.answers)
	}
	if x.answers != nil {
		x.answers[eventType] = keys
	}
	return keys
}
