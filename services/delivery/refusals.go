package delivery

import (
	"sync"
	"time"

	"posthorn/services/internal/sender"
	"posthorn/services/internal/subscription"
)

// refusedAgain is when a refusal that goes on is logged again.
const refusedAgain = time.Hour

// refusals are what was logged last of a subscription's refused requests, by
// reason: of a name that moves to and fro each reason is logged once all the
// same. There are no more reasons than the sender has texts for.
type refusals struct {
	mu     sync.Mutex
	logged map[string]refusal
}

type refusal struct {
	host string
	at   time.Time
}

// news reports whether a refusal is to be logged.
func (r *refusals) news(host, reason string, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if last, ok := r.logged[reason]; ok && last.host == host && now.Sub(last.at) < refusedAgain {
		return false
	}
	if r.logged == nil {
		r.logged = map[string]refusal{}
	}
	r.logged[reason] = refusal{host, now}
	return true
}

// refused tells the operator, once for each reason, what the subscriber must not
// know: whether the host of its URL has no address, or one that may not be
// reached.
func (s *Service) refused(c *consumer, sub *subscription.Subscription, reason string) {
	host := c.hostName()
	if !c.refusals.news(host, reason, time.Now()) {
		return
	}
	if sender.Blocked(reason) {
		s.logger.Info("deliveries are refused: add the network to POSTHORN_ALLOW_NETWORKS if it may be reached",
			"subscription", sub.ID, "host", host, "reason", reason)
		return
	}
	s.logger.Info("host of a subscription has no address", "subscription", sub.ID, "host", host, "reason", reason)
}
