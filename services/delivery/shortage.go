package delivery

import (
	"context"
	"errors"

	"posthorn/services/internal/ledger"
	"posthorn/services/internal/sender"
)

var errShortOfResources = errors.New(
	"requests to subscribers wait: this machine is short of files (ulimit -n), ports or memory; lower POSTHORN_MAX_REQUESTS or raise the limit")

// runShort is called when a request could not be made for lack of local
// resources. That does not count as an attempt: nothing is recorded, and no
// request starts for a while. It returns errShortage.
func (s *Service) runShort(ctx context.Context, t token, result sender.Result, claimed bool) error {
	id, e := t.consumer.id, &t.envelope
	s.metrics.shortages.Inc()
	s.logger.Debug("request waits", "subscription", id, "error", result.Error)
	if claimed {
		// Release the claim, or the next process to claim the attempt would wait
		// until it expires. If the release fails, it does expire.
		if err := ledger.ReleaseClaim(ctx, s.db, e.Position, id, e.Run, e.Attempts); err != nil {
			s.logger.Debug("claim could not be released", "subscription", id, "position", e.Position, "error", err)
		}
	}
	s.gate.short()
	s.sender.Close() // idle connections are files
	return errShortage
}

// shortageChanged is called when a shortage begins and when it is over.
func (s *Service) shortageChanged(short bool) {
	if !short {
		s.troubles.clear(troubleShortage)
		s.logger.Info("shortage is over")
		return
	}
	s.troubles.set(troubleShortage, errShortOfResources.Error())
	s.logger.Warn("requests to subscribers wait", "error", errShortOfResources)
}
