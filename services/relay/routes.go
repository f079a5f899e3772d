package relay

import (
	"iter"
	"slices"
	"strings"
	"sync"

	"posthorn/events"
	"posthorn/services/internal/subscription"
)

// routes answers which subscriptions are owed an event. It is written by the
// forwarding loop alone and read by others.
type routes struct {
	mu   sync.RWMutex
	byID map[subscription.ID]Route
	// exact finds by type, wild holds the patterns with wildcards; answers
	// keeps what both came to until a route changes.
	exact   map[address][]subscription.ID
	wild    map[string][]wildcard // by account
	answers map[address]recipients
	// addressed are the subscriptions that the exchange of events is not to
	// find: the relay sends to their queues itself.
	addressed map[subscription.ID]bool
	// perAccount counts the routes.
	perAccount map[string]int
}

// recipients are the subscriptions that are owed an event: those that the
// exchange finds by their bindings, and those that the relay addresses. They
// are not to be changed.
type recipients struct{ bound, addressed []subscription.ID }

// all goes through both.
func (r recipients) all() iter.Seq[subscription.ID] {
	return func(yield func(subscription.ID) bool) {
		for _, ids := range [][]subscription.ID{r.bound, r.addressed} {
			for _, id := range ids {
				if !yield(id) {
					return
				}
			}
		}
	}
}

type address struct{ account, eventType string }

type wildcard struct {
	pattern events.Pattern
	id      subscription.ID
}

// maxAnswers bounds the kept answers: types are words that callers choose.
const maxAnswers = 10_000

func newRoutes(known []Route) *routes {
	r := &routes{byID: make(map[subscription.ID]Route, len(known))}
	r.exact, r.wild, r.answers = map[address][]subscription.ID{}, map[string][]wildcard{}, map[address]recipients{}
	r.addressed, r.perAccount = map[subscription.ID]bool{}, map[string]int{}
	for _, route := range known {
		r.add(route)
	}
	return r
}

func (r *routes) add(route Route) {
	r.byID[route.ID] = route
	r.perAccount[route.Account]++
	if !route.Status.Owed() {
		return
	}
	if !bindable(route.EventTypes) {
		r.addressed[route.ID] = true
	}
	for _, p := range route.EventTypes {
		if p.Exact() {
			at := address{route.Account, string(p)}
			r.exact[at] = append(r.exact[at], route.ID)
		} else {
			r.wild[route.Account] = append(r.wild[route.Account], wildcard{p, route.ID})
		}
	}
}

func (r *routes) remove(id subscription.ID) {
	route, ok := r.byID[id]
	if !ok {
		return
	}
	delete(r.byID, id)
	delete(r.addressed, id)
	if r.perAccount[route.Account]--; r.perAccount[route.Account] == 0 {
		delete(r.perAccount, route.Account)
	}
	for _, p := range route.EventTypes {
		at := address{route.Account, string(p)}
		ids := slices.DeleteFunc(r.exact[at], func(other subscription.ID) bool { return other == id })
		if r.exact[at] = ids; len(ids) == 0 {
			delete(r.exact, at)
		}
	}
	wild := slices.DeleteFunc(r.wild[route.Account], func(w wildcard) bool { return w.id == id })
	if r.wild[route.Account] = wild; len(wild) == 0 {
		delete(r.wild, route.Account)
	}
}

// match returns the subscriptions that are owed an event, each once.
func (r *routes) match(account, eventType string) recipients {
	r.mu.Lock()
	defer r.mu.Unlock()
	at := address{account, eventType}
	if known, ok := r.answers[at]; ok {
		return known
	}
	ids := slices.Clone(r.exact[at])
	for _, w := range r.wild[account] {
		if w.pattern.Match(eventType) {
			ids = append(ids, w.id)
		}
	}
	slices.Sort(ids)
	var to recipients
	for _, id := range slices.Compact(ids) {
		if r.addressed[id] {
			to.addressed = append(to.addressed, id)
		} else {
			to.bound = append(to.bound, id)
		}
	}
	if len(r.answers) >= maxAnswers {
		clear(r.answers)
	}
	r.answers[at] = to
	return to
}

func (r *routes) set(route Route) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.remove(route.ID)
	if route.Status != subscription.Deleted {
		r.add(route)
	}
	clear(r.answers)
}

func (r *routes) get(id subscription.ID) (Route, bool) {
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

// address has a subscription addressed by the relay, whatever its patterns.
func (r *routes) address(id subscription.ID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.addressed[id] = true
	clear(r.answers)
}

// bound are the patterns that a known route's queue is to be bound with.
func (r *routes) bound(route Route) []string {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if r.addressed[route.ID] {
		return nil
	}
	return bound(route)
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

// hasExchange reports whether the account's exchange is declared.
func (r *routes) hasExchange(account string) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return account == events.DefaultAccount || r.perAccount[account] > 0
}

func (r *routes) accounts() []string {
	r.mu.RLock()
	defer r.mu.RUnlock()
	accounts := []string{events.DefaultAccount}
	for account := range r.perAccount {
		accounts = append(accounts, account)
	}
	slices.Sort(accounts)
	return slices.Compact(accounts)
}

// bound are the patterns that a route's queue is to be bound with.
func bound(route Route) []string {
	if !route.Status.Owed() || !bindable(route.EventTypes) {
		return nil
	}
	return patterns(route.EventTypes)
}

// bindable reports whether a topic exchange may be given all of the patterns.
// One alone is cheap within the limits of events.ParsePattern, but an exchange
// follows all that begin alike at once, and one account could bind so many
// that each of its events takes RabbitMQ tenths of a second. Of the patterns
// that are admitted here, all there can be cost RabbitMQ 3.10 five milliseconds
// together: plain types, two "*", one "#", and a "#" at the end behind one "*".
func bindable(patterns []events.Pattern) bool {
	return !slices.ContainsFunc(patterns, func(p events.Pattern) bool {
		short, err := events.ParsePattern(string(p))
		if err != nil || short != p { // of an older version, or forged
			return true
		}
		stars, hashes := 0, 0
		for word := range strings.SplitSeq(string(p), ".") {
			switch word {
			case "*":
				stars++
			case "#":
				hashes++
			}
		}
		switch hashes {
		case 0:
			return stars > 2
		case 1:
			return stars > 1 || stars == 1 && !strings.HasSuffix(string(p), ".#")
		}
		return true
	})
}

// stale are patterns that an older version may have bound the route's queue
// with, though they are not to be bound.
func stale(route Route) []string {
	if bindable(route.EventTypes) {
		return nil
	}
	return nameable(patterns(route.EventTypes))
}

// nameable are the patterns that can have been bound: AMQP has no names for
// the others.
func nameable(patterns []string) []string {
	return slices.DeleteFunc(patterns, func(p string) bool { return len(p) > maxBindingKey })
}

// maxBindingKey is the length that AMQP gives to a binding key, in bytes.
const maxBindingKey = 255

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
