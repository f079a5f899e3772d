package inbox

import (
	"container/list"
	"slices"
	"sync"
	"time"

	"posthorn/events/webhook"
)

// Bounds on the stored requests. Beyond them the oldest are dropped.
const (
	maxRequests = 200      // per bin
	maxBins     = 1000     // with anything in them
	maxTotal    = 64 << 20 // bytes, of all requests together
	maxWatchers = 256
)

// store holds the bins.
type store struct {
	mu       sync.Mutex
	bins     map[string]*list.Element // of *bin
	recent   *list.List               // of *bin, most recently used first
	total    int
	clears   int // how often a bin was created or cleared
	watchers map[*watcher]struct{}
}

type bin struct {
	name     string
	settings Settings
	requests []Recorded // oldest first
	received int        // in total
	failed   int        // counted against Settings.Failures
	lastAt   time.Time
	// generation changes when numbers start from 1 again.
	generation int
}

// watcher is notified when the bin changes, or any bin if it has no name.
type watcher struct {
	name    string
	changed chan struct{}
}

// View is a bin with its requests, the newest first.
type View struct {
	Bin      string   `json:"bin"`
	Settings Settings `json:"settings"`
	Received int      `json:"received"`
	// Generation changes when the bin is cleared and numbers restart.
	Generation int        `json:"generation"`
	Requests   []Recorded `json:"requests"`
}

// Summary is a bin in the list of bins.
type Summary struct {
	Bin      string     `json:"bin"`
	Received int        `json:"received"`
	LastAt   *time.Time `json:"lastAt"`
}

func newStore() *store {
	return &store{bins: map[string]*list.Element{}, recent: list.New(), watchers: map[*watcher]struct{}{}}
}

// secret returns the secret that applies to a request with this override.
func (s *store) secret(name string, override func(*Settings)) webhook.Secret {
	s.mu.Lock()
	defer s.mu.Unlock()
	var settings Settings
	if element, ok := s.bins[name]; ok {
		settings = binOf(element).settings
	}
	override(&settings)
	return settings.secret
}

// add completes entry with its number and the response, stores it, and returns
// the settings that apply to this request.
func (s *store) add(name string, entry *Recorded, override func(*Settings)) Settings {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.open(name)
	settings := b.settings
	override(&settings)
	b.received++
	entry.Number = b.received
	var counts bool
	if entry.Answer, counts = settings.answer(b.failed); counts {
		b.failed++
	}
	b.lastAt = entry.At
	b.requests = append(b.requests, *entry)
	s.total += entry.size()
	if len(b.requests) > maxRequests {
		s.drop(b, len(b.requests)-maxRequests)
	}
	s.shrink()
	s.notify(name)
	return settings
}

// open returns the bin as the most recent one, and creates it if needed.
func (s *store) open(name string) *bin {
	if element, ok := s.bins[name]; ok {
		s.recent.MoveToFront(element)
		return binOf(element)
	}
	s.clears++
	b := &bin{name: name, generation: s.clears}
	s.bins[name] = s.recent.PushFront(b)
	if s.recent.Len() > maxBins {
		s.remove(s.recent.Back())
	}
	return b
}

func binOf(element *list.Element) *bin {
	b, _ := element.Value.(*bin) // the list holds nothing else
	return b
}

// drop deletes the bin's n oldest requests.
func (s *store) drop(b *bin, n int) {
	for i := range n {
		s.total -= b.requests[i].size()
	}
	b.requests = slices.Delete(b.requests, 0, n)
}

// shrink deletes the oldest requests of the least recently used bin, until the
// rest is within bounds.
func (s *store) shrink() {
	for element := s.recent.Back(); element != nil && s.total > maxTotal; element = element.Prev() {
		b := binOf(element)
		for len(b.requests) > 0 && s.total > maxTotal {
			s.drop(b, 1)
		}
	}
}

func (s *store) remove(element *list.Element) {
	b := binOf(element)
	s.drop(b, len(b.requests))
	s.recent.Remove(element)
	delete(s.bins, b.name)
}

// view returns the bin with the requests after that number. It does not create
// a bin.
func (s *store) view(name string, after int) View {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := View{Bin: name, Requests: []Recorded{}}
	if element, ok := s.bins[name]; ok {
		b := binOf(element)
		v.Settings, v.Received, v.Generation = b.settings, b.received, b.generation
		for _, r := range slices.Backward(b.requests) {
			if r.Number > after {
				v.Requests = append(v.Requests, r)
			}
		}
	}
	v.Settings.HasSecret = !v.Settings.secret.IsZero()
	v.Settings.Secret = nil
	return v
}

func (s *store) list() []Summary {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]Summary, 0, s.recent.Len())
	for element := s.recent.Front(); element != nil; element = element.Next() {
		b := binOf(element)
		summary := Summary{Bin: b.name, Received: b.received}
		if !b.lastAt.IsZero() {
			summary.LastAt = &b.lastAt
		}
		all = append(all, summary)
	}
	return all
}

// configure replaces the bin's settings and restarts the count of failures.
func (s *store) configure(name string, settings Settings) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.open(name)
	if settings.Secret == nil {
		settings.secret = b.settings.secret
	}
	settings.Secret = nil
	b.settings, b.failed = settings, 0
	s.notify(name)
}

// clear deletes the bin's requests and keeps its settings.
func (s *store) clear(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if element, ok := s.bins[name]; ok {
		b := binOf(element)
		s.drop(b, len(b.requests))
		s.clears++
		b.generation = s.clears
		b.received, b.failed, b.lastAt = 0, 0, time.Time{}
		s.notify(name)
	}
}

func (s *store) delete(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if element, ok := s.bins[name]; ok {
		s.remove(element)
		s.notify(name)
	}
}

// watch returns false if there are too many watchers already.
func (s *store) watch(name string) (*watcher, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.watchers) >= maxWatchers {
		return nil, false
	}
	w := &watcher{name: name, changed: make(chan struct{}, 1)}
	s.watchers[w] = struct{}{}
	return w, true
}

func (s *store) unwatch(w *watcher) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.watchers, w)
}

// notify never blocks: one pending change stands for all.
func (s *store) notify(name string) {
	for w := range s.watchers {
		if w.name == "" || w.name == name {
			select {
			case w.changed <- struct{}{}:
			default:
			}
		}
	}
}

// size is the approximate memory of the entry.
func (r *Recorded) size() int {
	n := 512 + len(r.Path) + len(r.Query) + len(r.Body)
	for _, h := range r.Headers {
		n += 32 + len(h.Name) + len(h.Value)
	}
	return n
}
