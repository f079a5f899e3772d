package relay

import (
	"slices"
	"sync"

	"posthorn/events"
	"posthorn/services/internal/postgres"
	"posthorn/services/internal/subscription"
)

// routes answers which subscriptions are owed an event. It is written by the
// forwarding loop alone and read by others.
type routes struct {
	mu   sync.RWMutex
	byID map[subscription.ID]postgres.Route
	// exact finds by type, wild holds the patterns with wildcards; answers
	// keeps what both came to until a route changes.
	exact   map[address][]subscription.ID
	wild    []wildcard
	answers map[address][]subscription.ID
}

type address struct{ account, eventType string }

type wildcard struct {
	account string
	pattern events.Pattern
	id      subscription.ID
}

// maxAnswers bounds the kept answers: types are words that callers choose.
const maxAnswers = 10_000

func newRoutes(known []postgres.Route) *routes {
	r := &routes{byID: make(map[subscription.ID]postgres.Route, len(known))}
	r.exact, r.answers = map[address][]subscription.ID{}, map[address][]subscription.ID{}
	for _, route := range known {
		r.add(route)
	}
	return r
}

func (r *routes) add(route postgres.Route) {
	r.byID[route.ID] = route
	if !route.Status.Owed() {
		return
	}
	for _, p := range route.EventTypes {
		if p.Exact() {
			at := address{route.Account, string(p)}
			r.exact[at] = append(r.exact[at], route.ID)
		} else {
			r.wild = append(r.wild, wildcard{route.Account, p, route.ID})
		}
	}
}

func (r *routes) remove(id subscription.ID) {
	route, ok := r.byID[id]
	if !ok {
		return
	}
	delete(r.byID, id)
	for _, p := range route.EventTypes {
		at := address{route.Account, string(p)}
		ids := slices.DeleteFunc(r.exact[at], func(other subscription.ID) bool { return other == id })
		if r.exact[at] = ids; len(ids) == 0 {
			delete(r.exact, at)
		}
	}
	r.wild = slices.DeleteFunc(r.wild, func(w wildcard) bool { return w.id == id })
}

// match returns the subscriptions that are owed an event, each once.
func (r *routes) match(account, eventType string) []subscription.ID {
	r.mu.Lock()
	defer r.mu.Unlock()
	at := address{account, eventType}
	if ids, ok := r.answers[at]; ok {
		return ids
	}
	ids := slices.Clone(r.exact[at])
	for _, w := range r.wild {
		if w.account == account && w.pattern.Match(eventType) {
			ids = append(ids, w.id)
		}
	}
	slices.Sort(ids)
	ids = slices.Compact(ids)
	if len(r.answers) >= maxAnswers {
		clear(r.answers)
	}
	r.answers[at] = ids
	return ids
}

func (r *routes) set(route postgres.Route) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.remove(route.ID)
	if route.Status != subscription.Deleted {
		r.add(route)
	}
	clear(r.answers)
}

func (r *routes) get(id subscription.ID) (postgres.Route, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	route, ok := r.byID[id]
	return route, ok
}

func (r *routes) len() int {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return len(r.byID)
}

// ids in a fixed order, for going round them.
func (r *routes) ids() []subscription.ID {
	r.mu.RLock()
	defer r.mu.RUnlock()
	ids := make([]subscription.ID, 0, len(r.byID))
	for id := range r.byID {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

func (r *routes) accounts() []string {
	r.mu.RLock()
	defer r.mu.RUnlock()
	accounts := []string{events.DefaultAccount}
	for _, route := range r.byID {
		accounts = append(accounts, route.Account)
	}
	slices.Sort(accounts)
	return slices.Compact(accounts)
}

// bound are the patterns that a route's queue is to be bound with.
func bound(route postgres.Route) []string {
	if !route.Status.Owed() {
		return nil
	}
	return patterns(route.EventTypes)
}

func patterns(types []events.Pattern) []string {
	words := make([]string, len(types))
	for i, p := range types {
		words[i] = string(p)
	}
	return words
}

// without are the elements of a that are not in b.
func without(a, b []string) []string {
	var rest []string
	for _, s := range a {
		if !slices.Contains(b, s) {
			rest = append(rest, s)
		}
	}
	return rest
}
