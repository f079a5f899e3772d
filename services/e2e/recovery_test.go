package e2e_test

import (
	"testing"
	"time"

	"posthorn/services/internal/broker"
	"posthorn/services/internal/ledger"
	"posthorn/services/internal/retry"
)

// topology is a connection of the test's own to the broker.
func (s *system) topology() *broker.Topology {
	s.t.Helper()
	topology, err := broker.NewTopology(s.broker)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = topology.Close() })
	return topology
}

// depth is how many messages wait in a queue.
func (s *system) depth(topology *broker.Topology, queue string) int {
	n, _, _, err := topology.Depth(s.t.Context(), queue)
	if err != nil {
		s.t.Fatal(err)
	}
	return n
}

// A restart empties all queues, the queue memory too.
func TestWhatTheBrokerHasForgottenIsSentAgainAtOnce(t *testing.T) {
	t.Parallel()
	s := newSystem(t, "")
	s.broker.RetryRungs = []time.Duration{time.Second, 5 * time.Second}
	s.startAPI()
	s.startRelay()
	s.startDelivery(retry.Schedule{8 * time.Second, time.Minute})
	failing := make(chan struct{})
	r := newSubscriber(t, answerUntil(failing))
	retried := s.subscribe(r.URL, nil, "E")
	waits := newSubscriber(t, nil)
	paused := s.subscribe(waits.URL, nil, "E")
	s.must("POST", "/subscription/"+paused.ID+"/pause", nil, nil)
	ids := s.post("E", 40)
	topology, names := s.topology(), s.broker.Names()
	eventually(t, patience, "all wait", func() bool {
		return s.ledger(retried.ID)["retrying"] == 40 && s.depth(topology, names.DeliverQueue(paused.ID)) == 40
	})
	close(failing)

	lost := time.Now()
	for _, queue := range []string{
		names.DeliverQueue(paused.ID), names.DeliverQueue(retried.ID), names.Retry(time.Second), names.Retry(5 * time.Second), names.Memory(),
	} {
		if err := topology.Purge(t.Context(), queue); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, patience, "the paused subscription has its messages again", func() bool {
		return s.depth(topology, names.DeliverQueue(paused.ID)) == 40
	})
	eventually(t, patience, "the retries are made", func() bool { return s.ledger(retried.ID)["delivered"] == 40 })
	if took := time.Since(lost); took > ledger.SweepGrace {
		t.Errorf("it took %v: the sweeper was as fast", took)
	}
	// Each at its time, by the schedule's spread of a tenth, and the half second that a hop may be off.
	var early, late int
	err := s.db.QueryRowContext(t.Context(), `
		SELECT count(*) FILTER (WHERE b.started_at - a.started_at < interval '6.7 seconds'),
		       count(*) FILTER (WHERE b.started_at - a.started_at > interval '11 seconds')
		FROM posthorn.attempts a JOIN posthorn.attempts b USING (position, subscription_id)
		WHERE a.number = 1 AND b.number = 2`).Scan(&early, &late)
	if err != nil || early+late > 0 {
		t.Errorf("%d retries were early, %d late, %v", early, late, err)
	}
	for id, n := range r.times() {
		if n != 2 {
			t.Errorf("event %s was sent %d times, want 2", id, n)
		}
	}
	s.must("POST", "/subscription/"+paused.ID+"/resume", nil, nil)
	eventually(t, patience, "what was paused arrives", func() bool { return s.ledger(paused.ID)["delivered"] == len(ids) })
	once(t, waits, ids)
}

func TestAQueueThatIsPurgedIsFilledAgainWhileTheSubscriptionIsPaused(t *testing.T) {
	t.Parallel()
	s := startSystem(t)
	r := newSubscriber(t, nil)
	sub := s.subscribe(r.URL, nil, "E")
	other := s.subscribe(newSubscriber(t, nil).URL, nil, "E")
	s.must("POST", "/subscription/"+sub.ID+"/pause", nil, nil)
	ids := s.post("E", 700)
	topology, queue := s.topology(), s.broker.Names().DeliverQueue(sub.ID)
	eventually(t, patience, "they wait in the queue", func() bool { return s.depth(topology, queue) == len(ids) })
	eventually(t, patience, "the others are delivered", func() bool { return s.ledger(other.ID)["delivered"] == len(ids) })
	if err := topology.Purge(t.Context(), queue); err != nil {
		t.Fatal(err)
	}
	eventually(t, patience, "the queue is filled again", func() bool { return s.depth(topology, queue) == len(ids) })
	s.must("POST", "/subscription/"+sub.ID+"/resume", nil, nil)
	eventually(t, patience, "they arrive", func() bool { return s.ledger(sub.ID)["delivered"] == len(ids) })
	once(t, r, ids)
}

func TestTheDeadLetterQueueComesWithItsFirstMessage(t *testing.T) {
	t.Parallel()
	s := newSystem(t, "")
	s.startAPI()
	s.startRelay()
	s.startDelivery(retry.Schedule{})
	never := make(chan struct{})
	r := newSubscriber(t, answerUntil(never))
	sub := s.subscribe(r.URL, nil, "E")
	topology, queue := s.topology(), s.broker.Names().DeadQueue(sub.ID)
	exists := func() bool {
		_, _, exists, err := topology.Depth(t.Context(), queue)
		if err != nil {
			t.Fatal(err)
		}
		return exists
	}
	eventually(t, patience, "the subscription is served", func() bool {
		_, consumers, _, err := topology.Depth(t.Context(), s.broker.Names().DeliverQueue(sub.ID))
		return err == nil && consumers == 1
	})
	if exists() {
		t.Error("the dead-letter queue is there before there is a dead letter")
	}
	s.post("E", 30)
	eventually(t, patience, "all are dead letters", func() bool { return exists() && s.depth(topology, queue) == 30 })
	s.must("DELETE", "/subscription/"+sub.ID, nil, nil)
	eventually(t, patience, "it goes with the subscription", func() bool { return !exists() })
}
