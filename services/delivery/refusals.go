package delivery

import (
	"sync"
	"time"

	"posthorn/services/internal/sender"
	"posthorn/services/internal/subscription"
)

// refusedAgain is when a refusal that goes on is logged again.
const refusedAgain = time.Hour

// refusals are what was logged last of a subscription's refused requests.
type refusals struct {
	mu     sync.Mutex
	reason string
	host   string
	at     time.Time
}

// news reports whether a refusal is to be logged.
func (r *refusals) news(host, reason string, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.reason == reason && r.host == host && now.Sub(r.at) < refusedAgain {
		return false
	}
	r.reason, r.host, r.at = reason, host, now
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
