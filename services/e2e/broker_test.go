package e2e_test

import (
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"posthorn/services/internal/broker"
	"posthorn/services/internal/privateserver"
	"posthorn/services/internal/proxy"
	"posthorn/services/internal/retry"
)

// openDir is a temporary folder that the servers' users can enter when root
// runs the tests.
func openDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{dir, filepath.Dir(dir)} {
		if err := os.Chmod(d, 0o711); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestASubscriptionMadeWhileTheBrokerIsDownIsServedWhenItIsBack(t *testing.T) {
	t.Parallel()
	s := newSystem(t, "")
	u, err := url.Parse(s.broker.URL)
	if err != nil {
		t.Fatal(err)
	}
	l, err := proxy.New(t.Context(), u.Host)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	u.Host = l.Addr()
	s.broker.URL = u.String()
	s.startAPI()
	s.startRelay()
	s.startDelivery(nil)
	// It existed before, so it is lost and not only late.
	before := newSubscriber(t, nil)
	s.subscribe(before.URL, nil, "E")
	first := s.post("E", 1)
	eventually(t, patience, "the line works", func() bool { return len(before.got()) == 1 })

	l.Cut()
	during := newSubscriber(t, nil)
	s.subscribe(during.URL, nil, "E")
	ids := s.post("E", 20)
	if n := len(during.got()); n != 0 {
		t.Errorf("%d requests while the broker is away", n)
	}
	if err := l.Mend(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, patience, "everything arrives", func() bool {
		return len(during.times()) == len(ids) && len(before.times()) == len(ids)+1
	})
	once(t, during, ids)
	once(t, before, append(first, ids...))
}

func TestAWipedBrokerLosesNothing(t *testing.T) {
	t.Parallel()
	mq, err := privateserver.StartRabbitMQ(t.Context(), privateserver.Options{Dir: openDir(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := mq.Kill(); err != nil {
			t.Error(err)
		}
	})
	s := newSystem(t, mq.URL())
	s.startAPI()
	s.startRelay()
	// All of the deliveries wait for their first retry when the node is wiped.
	failing := make(chan struct{})
	r := newSubscriber(t, answerUntil(failing))
	s.startDelivery(retry.Schedule{5 * time.Second, time.Second, time.Second, time.Second, time.Second, time.Second, 5 * time.Second, 10 * time.Second, 30 * time.Second})
	sub := s.subscribe(r.URL, nil, "E")
	ids := s.post("E", 1000)
	eventually(t, 2*patience, "all wait for a retry", func() bool { return s.ledger(sub.ID)["retrying"] == 1000 })
	if err := mq.Wipe(t.Context()); err != nil {
		t.Fatal(err)
	}
	close(failing)
	wiped := time.Now()
	eventually(t, 90*time.Second, "all 1,000 arrive", func() bool { return s.ledger(sub.ID)["delivered"] == 1000 })
	t.Logf("all 1,000 were delivered %v after the node was empty", time.Since(wiped).Round(time.Second))
	if n := len(r.times()); n != len(ids) {
		t.Errorf("%d events arrived, want %d", n, len(ids))
	}
	// And new events work again.
	after := s.post("E", 10)
	eventually(t, patience, "new events arrive", func() bool { return s.ledger(sub.ID)["delivered"] == 1010 })
	for _, id := range after {
		if r.times()[id] != 1 {
			t.Errorf("event %s arrived %d times, want once", id, r.times()[id])
		}
	}
}

func TestADeletedQueueIsRestoredAndItsMessagesAreSentAgain(t *testing.T) {
	t.Parallel()
	s := startSystem(t)
	r := newSubscriber(t, nil)
	sub := s.subscribe(r.URL, nil, "E")
	s.must("POST", "/subscription/"+sub.ID+"/pause", nil, nil)
	ids := s.post("E", 20)
	eventually(t, patience, "they wait in the queue", func() bool { return s.ledger(sub.ID)["pending"] == 20 })

	topology, err := broker.NewTopology(s.broker)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = topology.Close() }()
	if err := topology.DeleteQueue(t.Context(), s.broker.Names().DeliverQueue(sub.ID)); err != nil {
		t.Fatal(err)
	}
	s.must("POST", "/subscription/"+sub.ID+"/resume", nil, nil)
	eventually(t, 90*time.Second, "all arrive", func() bool { return s.ledger(sub.ID)["delivered"] == len(ids) })
	once(t, r, ids)
}
