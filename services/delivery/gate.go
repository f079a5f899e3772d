package delivery

import (
	"context"
	"sync"
	"time"

	"posthorn/services/internal/subscription"
)

const (
	// firstPause and longestPause bound the pause without new requests after a
	// shortage in this process. It doubles from one shortage to the next.
	firstPause   = 100 * time.Millisecond
	longestPause = 5 * time.Second
	// growEvery is how often a limit lowered by a shortage is doubled.
	growEvery = time.Second
	// slowAfter is the request duration at which a host counts as slow.
	slowAfter = 2 * time.Second
	// forgetAfter is how long an idle host is remembered as slow.
	forgetAfter = 10 * time.Minute
	// hostsKept is how many hosts are kept before idle ones are forgotten.
	hostsKept = 1024
)

// gate decides when a request may start. It bounds the process's requests in
// flight and shares the slots, so that a subscriber that hangs delays no other:
//
//   - A host may have twice as many in flight as then remain free, and a
//     subscription as many as its host could have in addition. Alone, that is
//     two thirds and a half of all; the more hosts are busy, the less each may
//     have, and some slots stay free for the next one.
//   - A quarter is reserved for hosts that are not slow.
//   - A freed slot goes to the host with the fewest in flight, then to its
//     subscription with the fewest, then to the longest waiting request.
//   - A host or subscription with none in flight may have one as soon as any
//     slot is free.
//
// After a shortage of files, ports or memory no request starts for a pause, then
// half as many as before, and more as long as it does not happen again.
type gate struct {
	capacity int
	// changed is called when a shortage begins and when it is over.
	changed func(short bool)

	mu    sync.Mutex
	limit int // capacity, or less after a shortage
	total int // in flight
	slow  int // in flight to slow hosts
	hosts map[string]*host
	// queue has the hosts with waiting requests, least recently served first.
	queue []*host

	waiting int
	sweepAt int // number of hosts at which idle ones are forgotten

	closed, paused bool
	pause          time.Duration // the last one; 0 without a shortage
	timer          *time.Timer
}

// host is a destination of requests: a name or address with its port.
type host struct {
	name        string
	inFlight    int
	slow        bool
	usedAt      time.Time
	subscribers map[subscription.ID]*subscriber
	// queue has the subscribers with waiting requests, least recently served first.
	queue []*subscriber
}

// subscriber is a subscription's requests to a host.
type subscriber struct {
	id       subscription.ID
	host     *host
	inFlight int
	waiting  []chan struct{} // each closed when it may enter
}

// pass is the right to one request.
type pass struct {
	subscriber *subscriber
	at         time.Time
}

func newGate(capacity int, changed func(short bool)) *gate {
	return &gate{capacity: capacity, changed: changed, limit: capacity, hosts: map[string]*host{}, sweepAt: hostsKept}
}

// enter waits until a request may start. If stopping is closed it returns
// errGiveBack.
func (g *gate) enter(ctx context.Context, name string, id subscription.ID, stopping <-chan struct{}) (pass, error) {
	g.mu.Lock()
	s := g.subscriber(name, id)
	if len(s.waiting) == 0 && g.admits(s) {
		g.take(s)
		g.mu.Unlock()
		return pass{s, time.Now()}, nil
	}
	turn := make(chan struct{})
	if len(s.waiting) == 0 {
		if len(s.host.queue) == 0 {
			g.queue = append(g.queue, s.host)
		}
		s.host.queue = append(s.host.queue, s)
	}
	s.waiting = append(s.waiting, turn)
	g.waiting++
	g.mu.Unlock()
	var err error
	select {
	case <-turn:
		return pass{s, time.Now()}, nil
	case <-stopping:
		err = errGiveBack
	case <-ctx.Done():
		err = ctx.Err()
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	select {
	case <-turn: // it was let in meanwhile
		g.giveBack(s)
		g.dispatch()
	default:
		g.leave(s, turn)
	}
	return pass{}, err
}

// exit frees the slot that enter took.
func (g *gate) exit(p pass) {
	now := time.Now()
	g.mu.Lock()
	defer g.mu.Unlock()
	h := p.subscriber.host
	h.usedAt = now
	if slow := now.Sub(p.at) >= slowAfter; slow != h.slow {
		h.slow = slow
		if slow {
			g.slow += h.inFlight
		} else {
			g.slow -= h.inFlight
		}
	}
	g.giveBack(p.subscriber)
	g.dispatch()
}

// short is called when a request failed for lack of local resources.
func (g *gate) short() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.paused || g.closed {
		return // the requests in flight fail together
	}
	if g.pause == 0 {
		g.changed(true)
	}
	g.paused = true
	g.pause = min(max(2*g.pause, firstPause), longestPause)
	g.limit = max(1, min(g.limit, g.total)/2)
	g.after(g.pause, func() {
		g.paused = false
		g.dispatch()
		g.after(growEvery, g.grow)
	})
}

// grow ends a shortage step by step.
func (g *gate) grow() {
	g.limit = min(2*g.limit, g.capacity)
	g.dispatch()
	if g.limit < g.capacity {
		g.after(growEvery, g.grow)
		return
	}
	g.pause = 0
	g.changed(false)
}

// after schedules f and replaces the previous timer. g.mu is held by the caller,
// and when f runs.
func (g *gate) after(d time.Duration, f func()) {
	if g.timer != nil {
		g.timer.Stop()
	}
	var timer *time.Timer
	timer = time.AfterFunc(d, func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		if g.timer == timer && !g.closed {
			f()
		}
	})
	g.timer = timer
}

// close stops the timer.
func (g *gate) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
	if g.timer != nil {
		g.timer.Stop()
	}
}

// counts returns how many requests are in flight and how many wait.
func (g *gate) counts() (inFlight, waiting int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.total, g.waiting
}

func (g *gate) subscriber(name string, id subscription.ID) *subscriber {
	h := g.hosts[name]
	if h == nil {
		if len(g.hosts) >= g.sweepAt {
			g.forget()
		}
		h = &host{name: name, subscribers: map[subscription.ID]*subscriber{}}
		g.hosts[name] = h
	}
	s := h.subscribers[id]
	if s == nil {
		s = &subscriber{id: id, host: h}
		h.subscribers[id] = s
	}
	return s
}

// forget drops idle hosts, which were kept because they were slow.
func (g *gate) forget() {
	for name, h := range g.hosts {
		if len(h.subscribers) == 0 && time.Since(h.usedAt) > forgetAfter {
			delete(g.hosts, name)
		}
	}
	g.sweepAt = 2*len(g.hosts) + hostsKept
}

func (g *gate) admits(s *subscriber) bool {
	h, free := s.host, g.limit-g.total
	if g.paused || g.closed || free <= 0 || h.slow && g.slow >= max(1, g.limit-g.limit/4) {
		return false
	}
	return h.inFlight < max(1, 2*free) && s.inFlight < max(1, 2*free-h.inFlight)
}

func (g *gate) take(s *subscriber) {
	s.inFlight++
	s.host.inFlight++
	g.total++
	if s.host.slow {
		g.slow++
	}
}

func (g *gate) giveBack(s *subscriber) {
	s.inFlight--
	s.host.inFlight--
	g.total--
	if s.host.slow {
		g.slow--
	}
	g.tidy(s)
}

// tidy drops a subscriber and a host that are no longer needed.
func (g *gate) tidy(s *subscriber) {
	if s.inFlight > 0 || len(s.waiting) > 0 {
		return
	}
	delete(s.host.subscribers, s.id)
	if len(s.host.subscribers) == 0 && !s.host.slow {
		delete(g.hosts, s.host.name)
	}
}

// dispatch lets in all requests that may start now.
func (g *gate) dispatch() {
	for !g.paused && g.total < g.limit && len(g.queue) > 0 {
		s := g.next()
		if s == nil {
			return
		}
		turn := s.waiting[0]
		s.waiting = s.waiting[1:]
		g.waiting--
		g.take(s)
		g.requeue(s)
		close(turn)
	}
}

// next returns the subscriber whose request enters next, or nil if none may.
func (g *gate) next() (best *subscriber) {
	for _, h := range g.queue {
		if best != nil && h.inFlight >= best.host.inFlight {
			continue
		}
		var first *subscriber
		for _, s := range h.queue {
			if (first == nil || s.inFlight < first.inFlight) && g.admits(s) {
				if first = s; s.inFlight == 0 {
					break
				}
			}
		}
		if first != nil {
			if best = first; h.inFlight == 0 {
				break
			}
		}
	}
	return best
}

// requeue moves a subscriber that was served, and its host, behind the others,
// or out of the queue if no request waits.
func (g *gate) requeue(s *subscriber) {
	h := s.host
	h.queue = without(h.queue, s)
	if len(s.waiting) > 0 {
		h.queue = append(h.queue, s)
	}
	g.queue = without(g.queue, h)
	if len(h.queue) > 0 {
		g.queue = append(g.queue, h)
	}
}

// leave removes a waiting request of a subscriber.
func (g *gate) leave(s *subscriber, turn chan struct{}) {
	s.waiting = without(s.waiting, turn)
	g.waiting--
	if len(s.waiting) == 0 {
		s.host.queue = without(s.host.queue, s)
		if len(s.host.queue) == 0 {
			g.queue = without(g.queue, s.host)
		}
	}
	g.tidy(s)
}

// without removes an element, and keeps the order.
func without[T comparable](list []T, gone T) []T {
	for i, v := range list {
		if v == gone {
			if i == 0 {
				return list[1:] // the served element is mostly the first
			}
			return append(list[:i], list[i+1:]...)
		}
	}
	return list
}
