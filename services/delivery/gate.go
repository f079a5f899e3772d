package delivery

import (
	"context"
	"sync"
	"time"

	"posthorn/services/internal/subscription"
)

const (
	// firstPause and longestPause bound how long nothing starts after this
	// process ran short of something. It doubles from one shortage to the next.
	firstPause   = 100 * time.Millisecond
	longestPause = 5 * time.Second
	// growEvery is how often the limit that a shortage has lowered is doubled.
	growEvery = time.Second
	// slowAfter is how long a request takes to a host that counts as slow.
	slowAfter = 2 * time.Second
	// forgetAfter is when a host that is idle is no longer known to be slow.
	forgetAfter = 10 * time.Minute
	// hostsKept is how many hosts are known before idle ones are forgotten.
	hostsKept = 1024
)

// gate decides when a request may start. It bounds the requests in flight of
// the process and shares them, so that whoever hangs delays nobody else:
//
//   - A host may have as many in flight as twice of what is then left free, and
//     a subscription as many as its host could have more. Alone, that is two
//     thirds and a half of all; the more take much, the less each may, and
//     something stays free for the next one.
//   - A quarter is kept for hosts that are not slow.
//   - What is given free goes to the host that has the least in flight, then to
//     its subscription that has the least, then to who waits longest.
//   - Whoever has nothing in flight may have one request as soon as any is free.
//
// After a shortage of files, ports or memory nothing starts for a pause, then
// half as many as there were, and more as long as it does not happen again.
type gate struct {
	capacity int
	// changed is told when a shortage begins and when it is over.
	changed func(short bool)

	mu    sync.Mutex
	limit int // capacity, or less after a shortage
	total int // in flight
	slow  int // in flight to slow hosts
	hosts map[string]*host
	// queue are the hosts that are waited for, the one served longest ago first.
	queue []*host

	waiting int
	sweepAt int // how many hosts there are when idle ones are forgotten

	closed, paused bool
	pause          time.Duration // the last one; 0 without a shortage
	timer          *time.Timer
}

// host is where requests go: a name or address with its port.
type host struct {
	name     string
	inFlight int
	slow     bool
	usedAt   time.Time
	lines    map[subscription.ID]*line
	// queue are the lines with somebody in them, the one served longest ago first.
	queue []*line
}

// line are a subscription's requests to a host.
type line struct {
	id       subscription.ID
	host     *host
	inFlight int
	waiting  []chan struct{} // closed when it is its turn
}

// pass is the right to one request.
type pass struct {
	line *line
	at   time.Time
}

func newGate(capacity int, changed func(short bool)) *gate {
	return &gate{capacity: capacity, changed: changed, limit: capacity, hosts: map[string]*host{}, sweepAt: hostsKept}
}

// enter waits for a request's turn. stopping gives up with errGiveBack.
func (g *gate) enter(ctx context.Context, name string, id subscription.ID, stopping <-chan struct{}) (pass, error) {
	g.mu.Lock()
	l := g.line(name, id)
	if len(l.waiting) == 0 && g.admits(l) {
		g.take(l)
		g.mu.Unlock()
		return pass{l, time.Now()}, nil
	}
	turn := make(chan struct{})
	if len(l.waiting) == 0 {
		if len(l.host.queue) == 0 {
			g.queue = append(g.queue, l.host)
		}
		l.host.queue = append(l.host.queue, l)
	}
	l.waiting = append(l.waiting, turn)
	g.waiting++
	g.mu.Unlock()
	var err error
	select {
	case <-turn:
		return pass{l, time.Now()}, nil
	case <-stopping:
		err = errGiveBack
	case <-ctx.Done():
		err = ctx.Err()
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	select {
	case <-turn: // meanwhile it was
		g.giveBack(l)
		g.dispatch()
	default:
		g.leave(l, turn)
	}
	return pass{}, err
}

// exit gives free what enter has given.
func (g *gate) exit(p pass) {
	now := time.Now()
	g.mu.Lock()
	defer g.mu.Unlock()
	h := p.line.host
	h.usedAt = now
	if slow := now.Sub(p.at) >= slowAfter; slow != h.slow {
		h.slow = slow
		if slow {
			g.slow += h.inFlight
		} else {
			g.slow -= h.inFlight
		}
	}
	g.giveBack(p.line)
	g.dispatch()
}

// short is called when a request failed for want of something of ours.
func (g *gate) short() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.paused || g.closed {
		return // those that were in flight run short together
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

// after replaces what was to happen. g.mu is held, then and now.
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

// close ends what happens by itself.
func (g *gate) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
	if g.timer != nil {
		g.timer.Stop()
	}
}

// counts are how many requests are in flight and how many wait.
func (g *gate) counts() (inFlight, waiting int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.total, g.waiting
}

func (g *gate) line(name string, id subscription.ID) *line {
	h := g.hosts[name]
	if h == nil {
		if len(g.hosts) >= g.sweepAt {
			g.forget()
		}
		h = &host{name: name, lines: map[subscription.ID]*line{}}
		g.hosts[name] = h
	}
	l := h.lines[id]
	if l == nil {
		l = &line{id: id, host: h}
		h.lines[id] = l
	}
	return l
}

// forget drops idle hosts, which were kept because they are slow.
func (g *gate) forget() {
	for name, h := range g.hosts {
		if len(h.lines) == 0 && time.Since(h.usedAt) > forgetAfter {
			delete(g.hosts, name)
		}
	}
	g.sweepAt = 2*len(g.hosts) + hostsKept
}

func (g *gate) admits(l *line) bool {
	h, free := l.host, g.limit-g.total
	if g.paused || g.closed || free <= 0 || h.slow && g.slow >= max(1, g.limit-g.limit/4) {
		return false
	}
	return h.inFlight < max(1, 2*free) && l.inFlight < max(1, 2*free-h.inFlight)
}

func (g *gate) take(l *line) {
	l.inFlight++
	l.host.inFlight++
	g.total++
	if l.host.slow {
		g.slow++
	}
}

func (g *gate) giveBack(l *line) {
	l.inFlight--
	l.host.inFlight--
	g.total--
	if l.host.slow {
		g.slow--
	}
	g.tidy(l)
}

// tidy drops what is not needed any more.
func (g *gate) tidy(l *line) {
	if l.inFlight > 0 || len(l.waiting) > 0 {
		return
	}
	delete(l.host.lines, l.id)
	if len(l.host.lines) == 0 && !l.host.slow {
		delete(g.hosts, l.host.name)
	}
}

// dispatch lets in all that may enter now.
func (g *gate) dispatch() {
	for !g.paused && g.total < g.limit && len(g.queue) > 0 {
		l := g.next()
		if l == nil {
			return
		}
		turn := l.waiting[0]
		l.waiting = l.waiting[1:]
		g.waiting--
		g.take(l)
		g.requeue(l)
		close(turn)
	}
}

// next is the line that enters next, or nil where none may.
func (g *gate) next() (best *line) {
	for _, h := range g.queue {
		if best != nil && h.inFlight >= best.host.inFlight {
			continue
		}
		var first *line
		for _, l := range h.queue {
			if (first == nil || l.inFlight < first.inFlight) && g.admits(l) {
				if first = l; l.inFlight == 0 {
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

// requeue moves a line that was served, and its host, behind the others, or
// out of the queue where nobody is left.
func (g *gate) requeue(l *line) {
	h := l.host
	h.queue = without(h.queue, l)
	if len(l.waiting) > 0 {
		h.queue = append(h.queue, l)
	}
	g.queue = without(g.queue, h)
	if len(h.queue) > 0 {
		g.queue = append(g.queue, h)
	}
}

// leave takes somebody who waits out of a line.
func (g *gate) leave(l *line, turn chan struct{}) {
	l.waiting = without(l.waiting, turn)
	g.waiting--
	if len(l.waiting) == 0 {
		l.host.queue = without(l.host.queue, l)
		if len(l.host.queue) == 0 {
			g.queue = without(g.queue, l.host)
		}
	}
	g.tidy(l)
}

// without removes an element, and keeps the order.
func without[T comparable](list []T, gone T) []T {
	for i, v := range list {
		if v == gone {
			if i == 0 {
				return list[1:] // what was served is mostly the first
			}
			return append(list[:i], list[i+1:]...)
		}
	}
	return list
}
