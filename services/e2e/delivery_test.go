package e2e_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"posthorn/migrations/pgtest"
	"posthorn/services/internal/broker"
	"posthorn/services/internal/retry"
)

func TestALikeBecomesASignedWebhook(t *testing.T) {
	t.Parallel()
	s := startSystem(t)
	album := newSubscriber(t, nil)
	sub := s.subscribe(album.URL+"/my-album", nil, "LIKED_PHOTO")

	var like struct {
		ID string `json:"id"`
	}
	s.must(http.MethodGet, "/like/123", nil, &like)
	eventually(t, patience, "the webhook arrives", func() bool { return len(album.got()) > 0 })

	got := album.got()[0]
	wh, err := standardwebhooks.NewWebhook(sub.Secret)
	if err != nil {
		t.Fatal(err)
	}
	if err := wh.Verify(got.body, got.header); err != nil {
		t.Errorf("the official library does not verify the signature: %v", err)
	}
	if err := wh.Verify(append([]byte(" "), got.body...), got.header); err == nil {
		t.Error("the official library verifies another body")
	}
	var body struct {
		ID, Type, Subject string
		Timestamp         time.Time
	}
	if err := json.Unmarshal(got.body, &body); err != nil {
		t.Fatal(err)
	}
	if body.ID != like.ID || body.Type != "LIKED_PHOTO" || body.Subject != "photo/123" || got.header.Get("Webhook-Id") != like.ID {
		t.Errorf("body = %s, headers %v, want event %s", got.body, got.header, like.ID)
	}
	eventually(t, patience, "the ledger has it", func() bool { return s.ledger(sub.ID)["delivered"] == 1 })
	once(t, album, []string{like.ID})
}

func TestEachSubscriptionGetsExactlyItsTypesFromItsCreation(t *testing.T) {
	t.Parallel()
	s := startSystem(t)
	all, photos, late := newSubscriber(t, nil), newSubscriber(t, nil), newSubscriber(t, nil)
	s.subscribe(all.URL, nil, "#")
	s.subscribe(photos.URL, nil, "photo.*", "photo.liked", "PHOTO")
	liked := s.post("photo.liked", 50)
	deep := s.post("photo.liked.twice", 20)
	s.subscribe(late.URL, nil, "photo.#")
	after := s.post("photo.shared", 30)
	s.post("order.paid", 5)

	eventually(t, patience, "everything arrives", func() bool {
		return len(all.times()) == 105 && len(photos.times()) == 80 && len(late.times()) == 30
	})
	once(t, photos, append(append([]string(nil), liked...), after...))
	once(t, late, after)
	if len(deep) != 20 {
		t.Fatal("batch was not accepted whole")
	}
}

func TestAChangeOfTypesAppliesFromItsPlaceInTheLog(t *testing.T) {
	t.Parallel()
	s := startSystem(t)
	r := newSubscriber(t, nil)
	sub := s.subscribe(r.URL, nil, "A")
	want := s.post("A", 10)
	s.post("B", 10)
	s.must(http.MethodPatch, "/subscription/"+sub.ID, map[string]any{"eventTypes": []string{"B"}}, nil)
	s.post("A", 10)
	want = append(want, s.post("B", 10)...)
	eventually(t, patience, "the events arrive", func() bool { return s.ledger(sub.ID)["delivered"] == 20 })
	once(t, r, want)
}

func TestConsecutiveChangesApplyEachFromItsPlaceInTheLog(t *testing.T) {
	t.Parallel()
	s := newSystem(t, "")
	s.startAPI()
	// No relay is running yet, so all of this is one window of the log.
	const many = 30
	receivers := make([]*subscriber, many)
	subs := make([]subscribed, many)
	want := make([][]string, many)
	for i := range many {
		receivers[i] = newSubscriber(t, nil)
		subs[i] = s.subscribe(receivers[i].URL, nil, "A")
		if i%3 == 1 { // a change right after the creation, with no event in between
			s.must(http.MethodPatch, "/subscription/"+subs[i].ID, map[string]any{"eventTypes": []string{"B"}}, nil)
		}
	}
	a, b := s.post("A", 5), s.post("B", 7)
	for i := range many {
		want[i] = [][]string{a, b, a}[i%3]
		switch i % 6 {
		case 0:
			s.must(http.MethodPatch, "/subscription/"+subs[i].ID, map[string]any{"eventTypes": []string{"B"}}, nil)
		case 2:
			s.must(http.MethodDelete, "/subscription/"+subs[i].ID, nil, nil)
			want[i] = nil
		}
	}
	a, b = s.post("A", 3), s.post("B", 2)
	for i := range many {
		switch i % 6 {
		case 0, 1, 4:
			want[i] = append(slices.Clone(want[i]), b...)
		case 3, 5:
			want[i] = append(slices.Clone(want[i]), a...)
		}
	}

	s.startRelay()
	s.startDelivery(nil)
	for i := range many {
		eventually(t, patience, fmt.Sprint("what subscription ", i, " is owed arrives"), func() bool {
			return len(receivers[i].times()) == len(want[i]) && s.ledger(subs[i].ID)["pending"] == 0
		})
	}
	for i := range many {
		once(t, receivers[i], want[i])
	}
}

func TestFailuresAreRetriedByScheduleThenDieWithAReason(t *testing.T) {
	t.Parallel()
	s := newSystem(t, "")
	s.startAPI()
	s.startRelay()
	s.startDelivery(retry.Schedule{300 * time.Millisecond, 700 * time.Millisecond})
	flaky := newSubscriber(t, func(n int, _ *http.Request) int {
		if n < 3 {
			return http.StatusServiceUnavailable
		}
		return http.StatusOK
	})
	broken := newSubscriber(t, func(int, *http.Request) int { return http.StatusTeapot })
	recovers, dies := s.subscribe(flaky.URL, nil, "E"), s.subscribe(broken.URL, nil, "E")
	ids := s.post("E", 5)

	eventually(t, patience, "three recover and die", func() bool {
		return s.ledger(recovers.ID)["delivered"] == 5 && s.ledger(dies.ID)["dead"] == 5
	})
	for _, sub := range []*subscriber{flaky, broken} {
		for _, id := range ids {
			if n := sub.times()[id]; n != 3 {
				t.Errorf("event %s had %d attempts, want 3", id, n)
			}
		}
	}
	checkSchedule(t, flaky.got())

	letters := s.consume(s.broker.Names().DeadQueue(dies.ID))
	eventually(t, patience, "the dead letters are in their queue", func() bool { return len(letters()) == 5 })
	for _, d := range letters() {
		want := map[string]string{"posthorn-attempts": "3", "posthorn-last-status": "418", "posthorn-error-class": "status"}
		for name, value := range want {
			if d.Headers[name] != value {
				t.Errorf("dead letter has header %s = %q, want %q", name, d.Headers[name], value)
			}
		}
		if !json.Valid(d.Body) || d.ContentType != "application/json" {
			t.Errorf("dead letter is not readable as JSON: %s %q", d.ContentType, d.Body)
		}
	}
	var attempts struct {
		Items []struct {
			Number int    `json:"number"`
			Cause  string `json:"cause"`
		} `json:"items"`
	}
	s.must(http.MethodGet, "/subscription/"+dies.ID+"/attempts?limit=100", nil, &attempts)
	causes := map[string]int{}
	for _, a := range attempts.Items {
		causes[fmt.Sprint(a.Number, " ", a.Cause)]++
	}
	if diff := cmp.Diff(map[string]int{"1 live": 5, "2 retry": 5, "3 retry": 5}, causes); diff != "" {
		t.Errorf("attempts (-want +got):\n%s", diff)
	}
}

// checkSchedule looks at the gaps between the attempts of each event.
func checkSchedule(t *testing.T, got []request) {
	t.Helper()
	last := map[string]time.Time{}
	number := map[string]int{}
	least := []time.Duration{0, 270 * time.Millisecond, 630 * time.Millisecond}
	for _, r := range got {
		id := r.header.Get("Webhook-Id")
		if gap := r.at.Sub(last[id]); number[id] > 0 && gap < least[number[id]]-100*time.Millisecond {
			t.Errorf("attempt %d of %s arrived after %v, want at least about %v", number[id]+1, id, gap, least[number[id]])
		}
		last[id] = r.at
		number[id]++
	}
}

func TestASubscriberThatHangsDelaysNoOther(t *testing.T) {
	t.Parallel()
	s := startSystem(t)
	release := make(chan struct{})
	var once sync.Once
	hanging := newSubscriber(t, func(_ int, r *http.Request) int {
		select {
		case <-release:
		case <-r.Context().Done():
		}
		return http.StatusOK
	})
	t.Cleanup(func() { once.Do(func() { close(release) }) })
	well := newSubscriber(t, nil)
	s.subscribe(hanging.URL, map[string]any{"maxInFlight": 2}, "E")
	sub := s.subscribe(well.URL, nil, "E")
	ids := s.post("E", 500)
	eventually(t, patience, "the other subscriber has everything", func() bool { return s.ledger(sub.ID)["delivered"] == len(ids) })
	if n := len(hanging.got()); n != 2 {
		t.Errorf("%d requests are in flight to the hanging subscriber, want its limit of 2", n)
	}
	once.Do(func() { close(release) })
}

func TestPausingHoldsAndResumingDelivers(t *testing.T) {
	t.Parallel()
	s := startSystem(t)
	r := newSubscriber(t, nil)
	sub := s.subscribe(r.URL, nil, "E")
	ids := s.post("E", 10)
	eventually(t, patience, "the first ones arrive", func() bool { return s.ledger(sub.ID)["delivered"] == 10 })
	s.must(http.MethodPost, "/subscription/"+sub.ID+"/pause", nil, nil)
	// A second later no request starts any more.
	marker := newSubscriber(t, nil)
	s.subscribe(marker.URL, nil, "MARK")
	paused := time.Now()
	eventually(t, patience, "a second passes", func() bool { return time.Since(paused) > time.Second })
	held := s.post("E", 10)
	s.post("MARK", 1)
	eventually(t, patience, "a later event arrives elsewhere", func() bool { return len(marker.got()) == 1 })
	if n := len(r.got()); n != 10 {
		t.Errorf("%d requests arrived, want none while paused", n-10)
	}
	// The relay enters them in the ledger after it has published them.
	eventually(t, patience, "ten deliveries wait", func() bool { return s.ledger(sub.ID)["pending"] == 10 })
	s.must(http.MethodPost, "/subscription/"+sub.ID+"/resume", nil, nil)
	eventually(t, patience, "the held ones arrive", func() bool { return s.ledger(sub.ID)["delivered"] == 20 })
	once(t, r, append(ids, held...))
}

func TestADeletedSubscriptionGetsNothingMoreAndIsExplained(t *testing.T) {
	t.Parallel()
	s := newSystem(t, "")
	s.startAPI()
	s.startRelay()
	s.startDelivery(retry.Schedule{time.Hour})
	r := newSubscriber(t, func(int, *http.Request) int { return http.StatusInternalServerError })
	sub := s.subscribe(r.URL, nil, "E")
	s.post("E", 5)
	eventually(t, patience, "the first attempts fail", func() bool { return s.ledger(sub.ID)["retrying"] == 5 })
	s.must(http.MethodDelete, "/subscription/"+sub.ID, nil, nil)
	eventually(t, patience, "what was owed is cancelled", func() bool { return s.ledger(sub.ID)["cancelled"] == 5 })
	topology, err := broker.NewTopology(s.broker)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = topology.Close() }()
	eventually(t, patience, "its queues are gone", func() bool {
		_, _, exists, err := topology.Depth(t.Context(), s.broker.Names().DeliverQueue(sub.ID))
		return err == nil && !exists
	})
	if n := len(r.got()); n != 5 {
		t.Errorf("%d requests, want 5", n)
	}
	if status := s.do(http.MethodGet, "/subscription/"+sub.ID, nil, nil); status != http.StatusNotFound {
		t.Errorf("status of a deleted subscription = %d, want 404", status)
	}
}

func TestATestEventGoesOnlyToItsSubscription(t *testing.T) {
	t.Parallel()
	s := startSystem(t)
	one, other := newSubscriber(t, nil), newSubscriber(t, nil)
	sub := s.subscribe(one.URL, nil, "#")
	s.subscribe(other.URL, nil, "#")
	s.must(http.MethodPost, "/subscription/"+sub.ID+"/test", nil, nil)
	s.post("E", 1)
	eventually(t, patience, "both have the event after it", func() bool { return len(other.got()) == 1 && len(one.got()) == 2 })
}

func TestAnOpenTransactionElsewhereDelaysNothing(t *testing.T) {
	t.Parallel()
	other := pgtest.New(t)
	tx, err := other.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback() }()
	if _, err := tx.ExecContext(t.Context(), `SELECT pg_current_xact_id()`); err != nil {
		t.Fatal(err)
	}
	s := startSystem(t)
	r := newSubscriber(t, nil)
	s.subscribe(r.URL, nil, "E")
	ids := s.post("E", 100)
	eventually(t, patience, "everything arrives", func() bool { return len(r.times()) == len(ids) })
	once(t, r, ids)
}

func TestSeveralOfEachPartShareTheWorkWithoutDuplicates(t *testing.T) {
	t.Parallel()
	s := newSystem(t, "")
	s.startAPI()
	first := s.startRelay()
	s.startRelay()
	s.startRelay()
	s.startDelivery(nil)
	stopDelivery := s.startDelivery(nil)
	r := newSubscriber(t, nil)
	sub := s.subscribe(r.URL, nil, "E")
	ids := s.post("E", 2000)
	// A rolling deploy in the middle.
	eventually(t, patience, "it is under way", func() bool { return len(r.got()) > 100 })
	first()
	stopDelivery()
	ids = append(ids, s.post("E", 1000)...)
	eventually(t, 2*patience, "everything arrives", func() bool { return s.ledger(sub.ID)["delivered"] == len(ids) })
	once(t, r, ids)
}
