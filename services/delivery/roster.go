package delivery

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"posthorn/services/internal/broker"
	"posthorn/services/internal/postgres"
	"posthorn/services/internal/subscription"
)

const (
	// followOverlap covers changes that committed later than their timestamp.
	followOverlap = 10 * time.Second
	// reviewEvery is how often all subscriptions are read again, for changes that
	// committed even later.
	reviewEvery = 30 * time.Second
)

// roster starts and stops consumers as subscriptions are created, changed and
// deleted.
type roster struct {
	service *Service
	active  map[subscription.ID]*consumer
	// waiting are active subscriptions without a consumer yet: the relay has not
	// declared their queue, or their former consumer is still being drained.
	waiting map[subscription.ID]subscription.Subscription
	// sealed has the versions of active subscriptions whose secrets cannot be opened.
	sealed map[subscription.ID]int
	// late are subscriptions with deliveries that may wait longer than their
	// current schedule says; nil until they have been read.
	late     map[subscription.ID]struct{}
	looked   time.Time // last successful poll
	widened  time.Time // when the windows were last adjusted
	further  int       // messages that all windows have in addition
	reviewed time.Time
}

// consumer serves an active subscription.
type consumer struct {
	id       subscription.ID
	settings atomic.Pointer[subscription.Subscription]
	slots    chan struct{} // one for each request that may be in flight
	window   window
	stopping chan struct{}
	parked   parking
	refusals refusals
	target   atomic.Pointer[target]
}

// target is the destination of requests with given settings.
type target struct {
	settings *subscription.Subscription
	host     string
}

// hostName is the host of the subscription's URL, with its port.
func (c *consumer) hostName() string {
	settings := c.settings.Load()
	if t := c.target.Load(); t != nil && t.settings == settings {
		return t.host
	}
	t := &target{settings: settings}
	if u, err := url.Parse(settings.URL); err == nil {
		t.host = strings.ToLower(u.Host)
	}
	c.target.Store(t)
	return t.host
}

// acquire waits for a slot of the subscription's maxInFlight. It gives up when
// the message is gone: another process may have it by now.
func (c *consumer) acquire(ctx context.Context, gone <-chan struct{}) error {
	select {
	case c.slots <- struct{}{}:
	case <-gone:
		return errGiveBack
	case <-c.stopping:
		return errGiveBack
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case <-gone: // both were ready
		c.release()
		return errGiveBack
	default:
		return nil
	}
}

func (c *consumer) release() { <-c.slots }

// follow keeps the consumers in sync with the subscriptions until ctx ends.
func (r *roster) follow(ctx context.Context) error {
	r.waiting, r.sealed = map[subscription.ID]subscription.Subscription{}, map[subscription.ID]int{}
	ticker := time.NewTicker(r.service.cfg.Follow)
	defer ticker.Stop()
	r.widened = time.Now()
	for {
		r.widen() //nolint:contextcheck // a consumer outlives the poll that starts it
		if err := r.look(ctx); err != nil && ctx.Err() == nil {
			if r.service.troubles.set(troubleSubscriptions, cmp.Or(postgres.Describe(err), "the subscriptions cannot be read")) {
				r.service.logger.Warn("subscriptions cannot be read: serving the known ones", "error", err)
			}
		}
		select {
		case <-ctx.Done():
			r.stopAll()
			return nil
		case <-ticker.C:
		}
	}
}

func (r *roster) look(ctx context.Context) error {
	now := time.Now()
	review := now.Sub(r.reviewed) >= reviewEvery
	var changed []subscription.Subscription
	var err error
	if review {
		changed, err = subscription.All(ctx, r.service.db)
	} else {
		changed, err = subscription.Changed(ctx, r.service.db, now.Sub(r.looked)+followOverlap)
	}
	if err != nil {
		return err
	}
	r.service.troubles.clear(troubleSubscriptions)
	r.looked = now
	if review {
		r.reviewed = now
	}
	for _, sub := range changed {
		r.apply(sub)
	}
	r.reportSealed(changed, review)
	if err := r.pullIn(ctx); err != nil {
		return err
	}
	if len(r.waiting) == 0 {
		return nil
	}
	// Looking for a missing queue costs the broker a channel each time; asking
	// the database costs almost nothing.
	ready, err := subscription.HaveQueues(ctx, r.service.db, slices.Collect(maps.Keys(r.waiting)))
	if err != nil {
		return err
	}
	for _, id := range ready {
		r.start(r.waiting[id]) //nolint:contextcheck // a consumer outlives the poll that starts it
	}
	return nil
}

func (r *roster) apply(sub subscription.Subscription) {
	c := r.active[sub.ID]
	if c != nil && c.settings.Load().Version >= sub.Version {
		return
	}
	if w, ok := r.waiting[sub.ID]; ok && w.Version >= sub.Version {
		return
	}
	delete(r.waiting, sub.ID)
	if sub.Status == subscription.Active {
		if err := sub.Open(r.service.keys); err != nil {
			r.unopened(sub, c, err)
			return
		}
	}
	delete(r.sealed, sub.ID)
	if c != nil {
		if !slices.Equal(r.service.schedule(c.settings.Load()), r.service.schedule(&sub)) && r.late != nil {
			r.late[sub.ID] = struct{}{}
		}
		// At once, also for messages in flight.
		c.settings.Store(&sub)
		if sub.Status == subscription.Active && sub.MaxInFlight == cap(c.slots) {
			return
		}
		r.stop(c)
	}
	if sub.Status == subscription.Active {
		r.waiting[sub.ID] = sub
		// It may have been changed while it was paused.
		if c == nil && sub.Version > 1 && r.late != nil {
			r.late[sub.ID] = struct{}{}
		}
	}
}

// unopened stops serving a subscription whose secrets cannot be opened. With its
// former settings, requests could go to an old URL or be signed with an old
// secret; its messages wait. Each review tries again.
func (r *roster) unopened(sub subscription.Subscription, c *consumer, err error) {
	if version, known := r.sealed[sub.ID]; !known || version != sub.Version {
		r.service.logger.Error("subscription cannot be served: its key is not in POSTHORN_SECRET_KEY", "subscription", sub.ID, "error", err)
	}
	r.sealed[sub.ID] = sub.Version
	if c != nil {
		r.stop(c)
	}
}

// reportSealed reports missing and old keys in readiness and metrics.
func (r *roster) reportSealed(seen []subscription.Subscription, all bool) {
	r.service.metrics.unopened.Set(float64(len(r.sealed)))
	if n := len(r.sealed); n > 0 {
		r.service.troubles.set(troubleSealed, fmt.Sprintf("%d subscriptions cannot be opened with POSTHORN_SECRET_KEY: posthorn secrets status", n))
	} else {
		r.service.troubles.clear(troubleSealed)
	}
	if !all {
		return
	}
	old := 0
	for _, sub := range seen {
		if len(sub.Sealed.Secret) > 0 && !r.service.keys.Current(sub.Sealed.Secret) {
			old++
		}
	}
	r.service.metrics.sealedOld.Set(float64(old))
}

func (r *roster) start(sub subscription.Subscription) {
	c := &consumer{id: sub.ID, slots: make(chan struct{}, sub.MaxInFlight), stopping: make(chan struct{})}
	c.settings.Store(&sub)
	err := r.service.consumers.Add(r.service.names.DeliverQueue(string(sub.ID)), sub.MaxInFlight+ahead,
		func(ctx context.Context, m broker.Message) error { return r.service.deliver(ctx, c, m) })
	switch {
	case errors.Is(err, broker.ErrAdded), errors.Is(err, broker.ErrClosed): // being drained, or stopping
	case err != nil:
		r.service.logger.Error("subscription cannot be served", "subscription", sub.ID, "error", err)
		delete(r.waiting, sub.ID)
	default:
		delete(r.waiting, sub.ID)
		r.active[sub.ID] = c
		r.service.metrics.subscriptions.Set(float64(len(r.active)))
	}
}

// stop begins to drain a consumer and does not wait for it: a slow subscriber
// must not delay the changes of others.
func (r *roster) stop(c *consumer) {
	delete(r.active, c.id)
	r.further -= c.window.further
	r.service.metrics.subscriptions.Set(float64(len(r.active)))
	close(c.stopping)
	go func() {
		if err := r.service.consumers.Remove(r.service.draining, r.service.names.DeliverQueue(string(c.id))); err != nil && r.service.draining.Err() == nil {
			r.service.logger.Warn("consumer is not drained", "subscription", c.id, "error", err)
		}
	}()
}

// stopAll releases the messages that wait for a slot. The Consumers drain those
// in flight.
func (r *roster) stopAll() {
	for _, c := range r.active {
		close(c.stopping)
	}
}
