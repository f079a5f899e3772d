package delivery

import (
	"maps"
	"slices"
	"sync"
)

// What can keep a Service from delivering, each on its own.
const (
	troubleLedger        = "ledger"
	troubleSubscriptions = "subscriptions"
	troubleShortage      = "shortage"
	troubleSealed        = "sealed"
)

// troubles are what keeps a Service from delivering at the moment, in words for
// anybody.
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

// all are the reasons, each once.
func (t *troubles) all() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Compact(slices.Sorted(maps.Values(t.now)))
}
