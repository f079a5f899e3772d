package relay

import (
	"context"
	"errors"
	"fmt"
	"time"

	"posthorn/services/internal/broker"
	"posthorn/services/internal/envelope"
	"posthorn/services/internal/ledger"
	"posthorn/services/internal/postgres"
	"posthorn/services/internal/replay"
)

const (
	// replayLook is how often an idle relay looks for a replay.
	replayLook = time.Second
	// replayAtOnce limits how many events of a replay one step sends.
	replayAtOnce = 1000
	// replayStepsPerSecond is into how many steps a second of a replay is divided.
	replayStepsPerSecond = 5
)

// replay works through the running replays, a step of each in turn, none faster
// than its rate. The ledger has the progress, so the next leader continues from
// there.
func (t *term) replay(ctx context.Context) error {
	next := map[replay.ID]time.Time{}
	for {
		if err := t.emptyDeadQueues(ctx); err != nil {
			return err
		}
		running, err := replay.AllRunning(ctx, t.db)
		if err != nil {
			return err
		}
		wait := replayLook
		known := make(map[replay.ID]time.Time, len(running))
		for _, r := range running {
			if due := time.Until(next[r.ID]); due > 0 {
				known[r.ID] = next[r.ID]
				wait = min(wait, due)
				continue
			}
			sent, more, err := t.replayStep(ctx, r)
			if err != nil {
				return err
			}
			if more {
				known[r.ID] = replayDue(next[r.ID], replayPause(r.Rate, sent))
				wait = min(wait, time.Until(known[r.ID]))
			}
		}
		next = known
		pause(ctx, max(wait, 0))
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// replayPause is how long the sent events last at a rate in events per second.
func replayPause(rate, sent int) time.Duration {
	if rate == 0 {
		return 0
	}
	return time.Duration(sent) * time.Second / time.Duration(rate)
}

// replayDue is when the next step is due. It counts from when the last step was
// due, not from when it ended, so that the duration of steps does not add up. A
// backlog of more than a second is not made up for in one burst.
func replayDue(last time.Time, pause time.Duration) time.Time {
	if now := time.Now(); now.Sub(last) > time.Second {
		last = now
	}
	return last.Add(pause)
}

// replayRows is how many events a step may send at a rate in events per second.
func replayRows(rate int) int {
	if rate == 0 {
		return replayAtOnce
	}
	return min(max(rate/replayStepsPerSecond, 1), replayAtOnce)
}

// replayStep advances a replay by one step and sends the messages of the runs
// that it begins. more is false if there is nothing to do at the moment.
func (t *term) replayStep(ctx context.Context, r replay.Replay) (sent int, more bool, err error) {
	step, err := replay.TakeStep(ctx, t.db, r.ID, replayRows(r.Rate))
	switch {
	case err == nil:
	case errors.Is(err, postgres.ErrUnavailable), ctx.Err() != nil:
		return 0, false, err
	default:
		// Only this replay is affected: the others, and live events, continue.
		t.logger.Error("replay has failed", "replay", r.ID, "subscription", r.Subscription, "error", err)
		return 0, false, replay.Fail(ctx, t.db, r.ID, err)
	}
	// Crash window: the runs are in the ledger but their messages are not
	// sent. They are overdue after ledger.SweepGrace, and the sweeper sends
	// them. If they were sent before the commit, they could be dropped as not
	// due, and be lost with the transaction.
	if err := t.sendReplayed(context.WithoutCancel(ctx), step); err != nil {
		return 0, false, err
	}
	if step.Status != replay.Running {
		t.logger.Info("replay has ended", "replay", r.ID, "subscription", r.Subscription, "status", step.Status,
			"sent", step.Sent, "skipped", step.Skipped)
	}
	return len(step.Due), step.Status == replay.Running && !step.Waiting, nil
}

func (t *term) sendReplayed(ctx context.Context, step replay.Step) error {
	due, err := t.sendable(ctx, step.Subscription, step.Due)
	if err != nil || len(due) == 0 {
		return err
	}
	returned, err := t.publishDue(ctx, due, false)
	if len(returned) > 0 {
		// The queue is missing. Declare it again, then send the returned messages.
		if err := t.restore(ctx, step.Subscription); err != nil {
			return err
		}
		// Messages that are returned once more are left to the sweeper.
		_, err = t.publishDue(ctx, returned, true)
	}
	if err != nil && !broker.Refused(err) { // refused messages are left to the sweeper
		return fmt.Errorf("send replayed events of %s: %w", step.ID, err)
	}
	t.metrics.replayed.Add(float64(len(due)))
	return nil
}

// publishDue sends the messages of due deliveries, each only to its
// subscription, and returns those that came back because their queue is missing.
func (t *term) publishDue(ctx context.Context, due []ledger.Due, suspect bool) (returned []ledger.Due, err error) {
	messages := make([]broker.Publishing, len(due))
	for i := range due {
		d := &due[i]
		messages[i] = t.relay.message(
			broker.Publishing{Exchange: t.names.Deliver(), Key: string(d.Subscription), Mandatory: true}, &d.Record,
			envelope.Envelope{
				Position: d.Position, Run: d.Run, Attempts: d.Attempts, Cause: d.Cause,
				PublishedAt: time.Now(), Suspect: suspect,
			})
	}
	outcomes, err := t.publisher.PublishAll(ctx, messages)
	for i, outcome := range outcomes {
		switch outcome {
		case broker.Returned:
			returned = append(returned, due[i])
		case broker.Nacked, broker.Unknown:
			return nil, err
		case broker.Acked:
		}
	}
	return returned, nil
}

// emptyDeadQueues empties the dead-letter queues of subscriptions whose last
// dead letters were redriven or purged. If some are left the queue stays as it
// is: the ledger, not the queue, is authoritative.
func (t *term) emptyDeadQueues(ctx context.Context) error {
	checks, err := ledger.DeadQueueChecks(ctx, t.db)
	if err != nil {
		return err
	}
	for _, c := range checks {
		if !c.Left {
			if err := t.topology.Purge(ctx, t.names.DeadQueue(string(c.Subscription))); err != nil {
				return fmt.Errorf("empty the dead-letter queue of %s: %w", c.Subscription, err)
			}
		}
		if err := ledger.DeadQueueChecked(ctx, t.db, c.Subscription); err != nil {
			return err
		}
	}
	return nil
}
