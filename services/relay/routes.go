package relay

import (
	"iter"
	"slices"
	"sync"

	"posthorn/services/internal/broker"
	"posthorn/services/internal/eventlog"
	"posthorn/services/internal/matching"
	"posthorn/services/internal/subscription"
)

// routes answers which subscriptions are owed an event. It is written by the
// forwarding loop alone and read by others.
type routes struct {
	mu       sync.RWMutex
	byID     map[subscription.ID]Route
	accounts map[string]*accountRoutes
	// addressed are the subscriptions that have no bindings to the exchange of
	// events: the relay sends to their queues itself.
	addressed map[subscription.ID]bool
}

// accountRoutes are an account's routes, and the patterns of those that are owed
// its events.
type accountRoutes struct {
	count            int
	bound, addressed matching.Index[subscription.ID]
}

// recipients are the subscriptions that are owed an event: those that the
// exchange finds by their bindings, and those that the relay addresses. Callers
// must not modify them.
type recipients struct{ bound, addressed []subscription.ID }

// all iterates over both.
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

func newRoutes(known []Route) *routes {
	r := &routes{
		byID: make(map[subscription.ID]Route, len(known)), accounts: map[string]*accountRoutes{}, addressed: map[subscription.ID]bool{},
	}
	for _, route := range known {
		r.add(route)
	}
	return r
}

func (r *routes) add(route Route) {
	of := r.accounts[route.Account]
	if of == nil {
		of = &accountRoutes{}
		r.accounts[route.Account] = of
	}
	r.byID[route.ID] = route
	of.count++
	if !route.Status.Owed() {
		return
	}
	if r.addressed[route.ID] || !matching.Bindable(route.EventTypes) {
		r.addressed[route.ID] = true
		of.addressed.Set(route.ID, route.EventTypes)
		return
	}
	of.bound.Set(route.ID, route.EventTypes)
}

func (r *routes) remove(id subscription.ID) {
	route, ok := r.byID[id]
	if !ok {
		return
	}
	delete(r.byID, id)
	delete(r.addressed, id)
	of := r.accounts[route.Account]
	of.bound.Set(id, nil)
	of.addressed.Set(id, nil)
	if of.count--; of.count == 0 {
		delete(r.accounts, route.Account)
	}
}

// match returns the subscriptions that are owed an event, each once.
func (r *routes) match(account, eventType string) recipients {
	r.mu.Lock()
	defer r.mu.Unlock()
	of := r.accounts[account]
	if of == nil {
		return recipients{}
	}
	return recipients{bound: of.bound.Match(eventType), addressed: of.addressed.Match(eventType)}
}

func (r *routes) set(route Route) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.remove(route.ID)
	if route.Status != subscription.Deleted {
		r.add(route)
	}
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

// address makes the relay address a subscription, whatever its patterns.
func (r *routes) address(id subscription.ID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.addressed[id] = true
	route, ok := r.byID[id]
	if !ok || !route.Status.Owed() {
		return
	}
	of := r.accounts[route.Account]
	of.bound.Set(id, nil)
	of.addressed.Set(id, route.EventTypes)
}

// bound returns the patterns to bind a known route's queue with.
func (r *routes) bound(route Route) []string {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if r.addressed[route.ID] {
		return nil
	}
	return bound(route)
}

// bindings are patterns that a subscription's queue is bound with.
type bindings struct {
	id       subscription.ID
	account  string
	patterns []string
}

// boundEarly returns the bindings that records of the log require but the routes
// before those records do not.
func (r *routes) boundEarly(ahead []eventlog.Record) []bindings {
	var early []bindings
	for i := range ahead {
		if ahead[i].Kind != eventlog.KindSubscription {
			continue
		}
		change, err := ahead[i].Change()
		if err != nil {
			continue // forwarding will set it aside
		}
		route, _ := r.get(change.ID)
		if extra := nameable(without(matching.PatternTexts(change.EventTypes), r.bound(route))); len(extra) > 0 {
			early = append(early, bindings{change.ID, change.Account, extra})
		}
	}
	return early
}

// ids returns all ids in a fixed order, to cycle through them.
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
	return !broker.OwnExchange(account) || r.accounts[account] != nil
}

// accountNames are the accounts that have a subscription.
func (r *routes) accountNames() []string {
	r.mu.RLock()
	defer r.mu.RUnlock()
	accounts := make([]string, 0, len(r.accounts))
	for account := range r.accounts {
		accounts = append(accounts, account)
	}
	slices.Sort(accounts)
	return accounts
}

// bound returns the patterns to bind a route's queue with.
func bound(route Route) []string {
	if !route.Status.Owed() || !matching.Bindable(route.EventTypes) {
		return nil
	}
	return matching.PatternTexts(route.EventTypes)
}

// stale returns patterns that an older version may have bound the route's queue
// with, but that must not be bound.
func stale(route Route) []string {
	if matching.Bindable(route.EventTypes) {
		return nil
	}
	return nameable(matching.PatternTexts(route.EventTypes))
}

// nameable returns the patterns that can have been bound: the others exceed
// AMQP's limit.
func nameable(patterns []string) []string {
	return slices.DeleteFunc(patterns, func(p string) bool { return len(p) > maxBindingKey })
}

// maxBindingKey is AMQP's limit for the length of a binding key, in bytes.
const maxBindingKey = 255

// without returns the elements of a that are not in b.
func without(a, b []string) []string {
	var rest []string
	for _, s := range a {
		if !slices.Contains(b, s) {
			rest = append(rest, s)
		}
	}
	return rest
}
