package delivery

import (
	"sync"
	"time"

	"posthorn/services/internal/sender"
	"posthorn/services/internal/subscription"
)

// refusedAgain is how often a continuing refusal is logged.
const refusedAgain = time.Hour

// refusals has the last logged refusal of a subscription's requests by reason,
// so that a name that alternates between addresses is still logged once per
// reason. The number of reasons is bounded by the sender's texts.
type refusals struct {
	mu     sync.Mutex
	logged map[string]refusal
}

type refusal struct {
	host string
	at   time.Time
}

// news reports whether to log a refusal.
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

// refused logs for the operator, once per reason, what the subscriber must not
// learn: whether the host of its URL has no address, or one that must not be
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
