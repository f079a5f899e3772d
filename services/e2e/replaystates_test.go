package e2e_test

import (
	"net/http"
	"testing"
	"time"

	"posthorn/services/internal/broker"
)

func TestAReplayToAPausedSubscriptionWaitsInItsQueue(t *testing.T) {
	t.Parallel()
	s := startSystem(t)
	r := newSubscriber(t, nil)
	sub := s.subscribe(r.URL, nil, "E")
	ids := s.post("E", 30)
	s.arrived(sub.ID, r, 1, ids)
	topology, err := broker.NewTopology(s.broker)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = topology.Close() }()
	queue := func(messages, consumers int) func() bool {
		return func() bool {
			m, c, exists, err := topology.Depth(t.Context(), s.broker.Names().DeliverQueue(sub.ID))
			return err == nil && exists && m == messages && c == consumers
		}
	}
	s.must(http.MethodPost, "/subscription/"+sub.ID+"/pause", nil, nil)
	eventually(t, patience, "nobody takes from the queue", queue(0, 0))

	replay := s.replayDone(s.replay(sub.ID, nil).ID)
	if replay.Sent != 30 {
		t.Errorf("replay = %+v, want 30 sent", replay)
	}
	live := s.post("E", 5)
	eventually(t, patience, "all of it waits in the queue", queue(35, 0))
	eventually(t, patience, "all of it is pending", func() bool { return s.ledger(sub.ID)["pending"] == 35 })
	if n := len(r.got()); n != 30 {
		t.Errorf("%d requests while it is paused, want the 30 from before", n)
	}
	// A second replay finds all deliveries under way.
	if again := s.replayDone(s.replay(sub.ID, nil).ID); again.Sent != 0 || again.Skipped != 35 {
		t.Errorf("a second replay = %+v, want all skipped", again)
	}
	s.must(http.MethodPost, "/subscription/"+sub.ID+"/resume", nil, nil)
	eventually(t, patience, "all of it arrives", func() bool { return len(r.got()) >= 65 && s.ledger(sub.ID)["delivered"] == 35 })
	times := r.times()
	for _, id := range ids {
		if times[id] != 2 {
			t.Errorf("event %s arrived %d times, want twice", id, times[id])
		}
	}
	for _, id := range live {
		if times[id] != 1 {
			t.Errorf("live event %s arrived %d times, want once", id, times[id])
		}
	}
}

func TestDeletingTheSubscriptionEndsItsReplay(t *testing.T) {
	t.Parallel()
	s := startSystem(t)
	r, other := newSubscriber(t, nil), newSubscriber(t, nil)
	sub, bystander := s.subscribe(r.URL, nil, "E"), s.subscribe(other.URL, nil, "E")
	ids := s.post("E", 300)
	s.arrived(sub.ID, r, 1, ids)
	s.arrived(bystander.ID, other, 1, ids)
	replay := s.replay(sub.ID, map[string]any{"rate": 50})
	eventually(t, patience, "the replay is under way", func() bool {
		s.must(http.MethodGet, "/replays/"+replay.ID, nil, &replay)
		return replay.Sent >= 20
	})
	s.must(http.MethodDelete, "/subscription/"+sub.ID, nil, nil)
	var ended struct {
		replayed
		Error string `json:"error"`
	}
	eventually(t, patience, "the replay is cancelled", func() bool {
		s.must(http.MethodGet, "/replays/"+replay.ID, nil, &ended)
		return ended.Status == "cancelled"
	})
	if ended.Sent >= 300 || ended.Error == "" {
		t.Errorf("replay = %+v, want it ended early, with a reason", ended)
	}
	eventually(t, patience, "nothing is owed to it", func() bool {
		ledger := s.ledger(sub.ID)
		return ledger["pending"]+ledger["retrying"] == 0 && ledger["delivered"]+ledger["cancelled"] == 300
	})
	for id, n := range r.times() {
		if n > 2 {
			t.Errorf("event %s arrived %d times", id, n)
		}
	}
	// Others continue, including replays.
	s.replayDone(s.replay(bystander.ID, nil).ID)
	s.arrived(bystander.ID, other, 2, ids)
	if status := s.do(http.MethodPost, "/replays", map[string]any{"subscription": sub.ID}, nil); status != http.StatusUnprocessableEntity {
		t.Errorf("a replay to a deleted subscription: status %d, want 422", status)
	}
}

func TestAReplayIsNoFasterThanItsRate(t *testing.T) {
	t.Parallel()
	s := startSystem(t)
	r := newSubscriber(t, nil)
	sub := s.subscribe(r.URL, nil, "E")
	ids := s.post("E", 300)
	s.arrived(sub.ID, r, 1, ids)
	// Steps of ten go out every fifth of a second: 290 events after the first ten. How much slower
	// the replay may be depends on the machine; package relay tests with a fake clock that slow
	// steps do not add up.
	start := time.Now()
	s.replayDone(s.replay(sub.ID, map[string]any{"rate": 50}).ID)
	s.arrived(sub.ID, r, 2, ids)
	var last time.Time
	for _, request := range r.got() {
		if request.at.After(last) {
			last = request.at
		}
	}
	rate := 290 / last.Sub(start).Seconds()
	t.Logf("%.1f events a second", rate)
	if rate > 55 {
		t.Errorf("%.1f events a second, want at most 50", rate)
	}
}
