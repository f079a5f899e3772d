package delivery

import (
	"errors"
	"sync"
)

// What can keep a Service from delivering, each on its own.
const (
	troubleLedger        = "ledger"
	troubleSubscriptions = "subscriptions"
	troubleShortage      = "shortage"
)

// troubles are what keeps a Service from delivering at the moment.
type troubles struct {
	mu  sync.Mutex
	now map[string]error
}

// set reports whether the trouble is new.
func (t *troubles) set(name string, err error) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	_, known := t.now[name]
	if t.now == nil {
		t.now = map[string]error{}
	}
	t.now[name] = err
	return !known
}

func (t *troubles) clear(name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.now, name)
}

// err is all of them, or nil.
func (t *troubles) err() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := make([]error, 0, len(t.now))
	for _, err := range t.now {
		all = append(all, err)
	}
	return errors.Join(all...)
}
