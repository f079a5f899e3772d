package delivery

import (
	"maps"
	"slices"
	"sync"
)

// Names of the problems that can each keep a Service from delivering.
const (
	troubleLedger        = "ledger"
	troubleSubscriptions = "subscriptions"
	troubleShortage      = "shortage"
	troubleSealed        = "sealed"
)

// troubles are the current problems that keep a Service from delivering, with
// texts that may be public.
type troubles struct {
	mu  sync.Mutex
	now map[string]string
}

// set reports whether the reason is new.
func (t *troubles) set(name, reason string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	old := t.now[name]
	if t.now == nil {
		t.now = map[string]string{}
	}
	t.now[name] = reason
	return old != reason
}

func (t *troubles) clear(name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.now, name)
}

// all returns the reasons, each once.
func (t *troubles) all() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Compact(slices.Sorted(maps.Values(t.now)))
}
