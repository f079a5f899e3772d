package e2e_test

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"posthorn/services/internal/broker"
	"posthorn/services/internal/replay"
	"posthorn/services/internal/retry"
)

type replayed struct {
	ID       string `json:"id"`
	Status   string `json:"status"`
	Matched  int    `json:"matched"`
	Sent     int    `json:"sent"`
	Skipped  int    `json:"skipped"`
	Position int64  `json:"position"`
	First    []struct {
		ID string `json:"id"`
	} `json:"first"`
}

// replay starts a replay to a subscription.
func (s *system) replay(sub string, settings map[string]any) replayed {
	s.t.Helper()
	body := map[string]any{"subscription": sub}
	maps.Copy(body, settings)
	var r replayed
	s.must(http.MethodPost, "/replays", body, &r)
	return r
}

// replayDone waits until a replay has sent everything.
func (s *system) replayDone(id string) replayed {
	s.t.Helper()
	var r replayed
	eventually(s.t, patience, "the replay is done", func() bool {
		s.must(http.MethodGet, "/replays/"+id, nil, &r)
		return r.Status == "done"
	})
	return r
}

// arrived waits until each event has arrived n times, everything is delivered
// in the ledger, and nothing else has come.
func (s *system) arrived(sub string, at *subscriber, n int, ids []string) {
	s.t.Helper()
	eventually(s.t, patience, fmt.Sprintf("each of %d events arrives %d times", len(ids), n), func() bool {
		return s.ledger(sub)["delivered"] == len(ids) && len(at.got()) >= n*len(ids)
	})
	want := map[string]int{}
	for _, id := range ids {
		want[id] = n
	}
	if diff := cmp.Diff(want, at.times()); diff != "" {
		s.t.Errorf("arrivals (-want +got):\n%s", diff)
	}
}

// causes counts a subscription's attempts by run, number and cause.
func (s *system) causes(sub string) map[string]int {
	s.t.Helper()
	rows, err := s.db.QueryContext(s.t.Context(), `
		SELECT format('%s.%s %s', run, number, cause), count(*) FROM posthorn.attempts WHERE subscription_id = $1::uuid GROUP BY 1`,
		strings.TrimPrefix(sub, "sub_"))
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = rows.Close() }()
	counts := map[string]int{}
	for rows.Next() {
		var (
			what string
			n    int
		)
		if err := rows.Scan(&what, &n); err != nil {
			s.t.Fatal(err)
		}
		counts[what] = n
	}
	if err := rows.Err(); err != nil {
		s.t.Fatal(err)
	}
	return counts
}

func TestAReplayArrivesOnceMoreOnlyAtItsSubscription(t *testing.T) {
	t.Parallel()
	s := startSystem(t)
	one, other := newSubscriber(t, nil), newSubscriber(t, nil)
	sub, bystander := s.subscribe(one.URL, nil, "E.#"), s.subscribe(other.URL, nil, "#")
	ids := s.post("E.a", 30)
	ids = append(ids, s.post("E.b", 20)...)
	foreign := s.post("F", 10)
	s.arrived(sub.ID, one, 1, ids)
	s.arrived(bystander.ID, other, 1, append(append([]string(nil), ids...), foreign...))

	preview := s.replay(sub.ID, map[string]any{"eventTypes": []string{"E.*", "F"}, "dryRun": true})
	if preview.Matched != 50 || len(preview.First) != 20 || preview.First[0].ID != ids[0] || preview.ID != "" {
		t.Errorf("dry run = %+v, want 50 events and the first 20 of them", preview)
	}
	for i, settings := range []map[string]any{nil, {"from": "beginning", "to": "now"}} {
		if r := s.replayDone(s.replay(sub.ID, settings).ID); r.Matched != 50 || r.Sent != 50 || r.Skipped != 0 {
			t.Errorf("replay = %+v, want 50 sent", r)
		}
		s.arrived(sub.ID, one, i+2, ids)
	}
	if diff := cmp.Diff(map[string]int{"0.1 live": 50, "1.1 replay": 50, "2.1 replay": 50}, s.causes(sub.ID)); diff != "" {
		t.Errorf("attempts (-want +got):\n%s", diff)
	}

	// Parts of the log: by event, by subject and type, by position; and beyond
	// the subscription's own types.
	s.replayDone(s.replay(sub.ID, map[string]any{"eventIds": ids[7:8]}).ID)
	s.replayDone(s.replay(sub.ID, map[string]any{"subjects": []string{"s/7"}, "eventTypes": []string{"E.b"}}).ID)
	var at struct {
		Position int64 `json:"position"`
	}
	s.must(http.MethodGet, "/events/"+ids[40], nil, &at)
	s.replayDone(s.replay(sub.ID, map[string]any{"from": at.Position, "to": fmt.Sprint(at.Position)}).ID)
	s.replayDone(s.replay(sub.ID, map[string]any{"eventTypes": []string{"F"}, "filter": "none"}).ID)
	want := map[string]int{ids[7]: 4, ids[37]: 4, ids[40]: 4}
	for _, id := range ids {
		want[id] = max(want[id], 3)
	}
	for _, id := range foreign {
		want[id] = 1
	}
	eventually(t, patience, "they arrive", func() bool { return len(one.got()) >= 163 && s.ledger(sub.ID)["delivered"] == 60 })
	if diff := cmp.Diff(want, one.times()); diff != "" {
		t.Errorf("arrivals (-want +got):\n%s", diff)
	}
	once(t, other, append(append([]string(nil), ids...), foreign...))
}

func TestAReplayContinuesWhereTheLastRelayStopped(t *testing.T) {
	t.Parallel()
	s := newSystem(t, "")
	s.startAPI()
	stop := s.startRelay()
	s.startDelivery(nil)
	r := newSubscriber(t, nil)
	sub := s.subscribe(r.URL, nil, "E")
	ids := s.post("E", 300)
	s.arrived(sub.ID, r, 1, ids)

	replay := s.replay(sub.ID, map[string]any{"rate": 400})
	progress := func(at int) func() bool {
		return func() bool {
			s.must(http.MethodGet, "/replays/"+replay.ID, nil, &replay)
			return replay.Sent >= at
		}
	}
	eventually(t, patience, "the replay is under way", progress(50))
	stop()
	s.startRelay()
	live := s.post("E", 100)
	eventually(t, patience, "the replay goes on", progress(150))
	s.must(http.MethodPost, "/replays/"+replay.ID+"/pause", nil, &replay)
	if replay.Status != "paused" || replay.Sent >= 300 {
		t.Fatalf("replay = %+v, want it paused before its end", replay)
	}
	paused := replay.Sent
	extra := s.post("E", 1)
	eventually(t, patience, "a live event arrives meanwhile", func() bool { return r.times()[extra[0]] == 1 })
	s.must(http.MethodGet, "/replays/"+replay.ID, nil, &replay)
	if replay.Sent != paused {
		t.Errorf("%d were sent while it was paused", replay.Sent-paused)
	}
	s.must(http.MethodPost, "/replays/"+replay.ID+"/resume", nil, nil)
	if got := s.replayDone(replay.ID); got.Sent != 300 {
		t.Errorf("replay = %+v, want 300 sent", got)
	}
	eventually(t, patience, "all of it arrives", func() bool { return len(r.got()) >= 701 && s.ledger(sub.ID)["delivered"] == 401 })
	want := map[string]int{}
	for _, id := range ids {
		want[id] = 2
	}
	for _, id := range append(live, extra...) {
		want[id] = 1
	}
	if diff := cmp.Diff(want, r.times()); diff != "" {
		t.Errorf("arrivals (-want +got):\n%s", diff)
	}

	// Cancelled, it sends no more, and cannot be resumed.
	replay = s.replay(sub.ID, map[string]any{"rate": 50})
	eventually(t, patience, "another is under way", progress(10))
	s.must(http.MethodDelete, "/replays/"+replay.ID, nil, &replay)
	if replay.Status != "cancelled" || replay.Sent >= 401 {
		t.Errorf("replay = %+v, want it cancelled", replay)
	}
	if status := s.do(http.MethodPost, "/replays/"+replay.ID+"/resume", nil, nil); status != http.StatusConflict {
		t.Errorf("status of resuming it = %d, want 409", status)
	}
}

func TestDeliveriesThatAReplayCouldNotSendAreSwept(t *testing.T) {
	t.Parallel()
	s := newSystem(t, "")
	s.startAPI()
	stop := s.startRelay()
	s.startDelivery(nil)
	r := newSubscriber(t, nil)
	sub := s.subscribe(r.URL, nil, "E")
	ids := s.post("E", 20)
	s.arrived(sub.ID, r, 1, ids)
	stop()
	begun := s.replay(sub.ID, nil)
	// A relay crashes between the ledger and the broker.
	step, err := replay.TakeStep(t.Context(), s.db, replay.ID(begun.ID), 12)
	if err != nil || len(step.Due) != 12 {
		t.Fatalf("step = %+v, %v", step, err)
	}
	if _, err := s.db.ExecContext(t.Context(), `
		UPDATE posthorn.deliveries SET next_attempt_at = clock_timestamp() - interval '10 seconds' WHERE status = 'pending'`); err != nil {
		t.Fatal(err)
	}
	s.startRelay()
	s.replayDone(begun.ID)
	s.arrived(sub.ID, r, 2, ids)
}

func TestANewSubscriptionGetsPastAndLiveEventsOnce(t *testing.T) {
	t.Parallel()
	s := startSystem(t)
	r := newSubscriber(t, nil)
	ids := s.post("E", 500)
	s.post("F", 5)
	writing := make(chan []string)
	go func() {
		var live []string
		for range 20 {
			live = append(live, s.post("E", 50)...)
		}
		writing <- live
	}()
	sub := s.subscribe(r.URL, map[string]any{"startFrom": "beginning"}, "E")
	ids = append(ids, <-writing...)
	s.arrived(sub.ID, r, 1, ids)

	// Starting at a position and at a time.
	var at struct {
		Position   int64     `json:"position"`
		RecordedAt time.Time `json:"recordedAt"`
	}
	s.must(http.MethodGet, "/events/"+ids[1000], nil, &at)
	byPosition, byTime := newSubscriber(t, nil), newSubscriber(t, nil)
	s.subscribe(byPosition.URL, map[string]any{"startFrom": at.Position}, "E")
	s.subscribe(byTime.URL, map[string]any{"startFrom": at.RecordedAt.Format(time.RFC3339Nano)}, "E")
	last := s.post("E", 1)
	eventually(t, patience, "both have the rest", func() bool {
		return len(byPosition.times()) >= 501 && len(byTime.times()) >= 501 && byTime.times()[last[0]] == 1 && byPosition.times()[last[0]] == 1
	})
	once(t, byPosition, append(append([]string(nil), ids[1000:]...), last...))
	for _, id := range append(append([]string(nil), ids[1000:]...), last...) {
		if n := byTime.times()[id]; n != 1 {
			t.Errorf("event %s arrived %d times by time, want once", id, n)
		}
	}
	_ = sub
}

func TestRetriesOfAReplayFollowTheScheduleFromItsStart(t *testing.T) {
	t.Parallel()
	s := newSystem(t, "")
	s.startAPI()
	s.startRelay()
	s.startDelivery(retry.Schedule{200 * time.Millisecond})
	// The first run dies; the second one succeeds at its second attempt.
	r := newSubscriber(t, func(n int, _ *http.Request) int {
		if n < 4 {
			return http.StatusTeapot
		}
		return http.StatusOK
	})
	sub := s.subscribe(r.URL, nil, "E")
	dead := s.post("E", 3)
	eventually(t, patience, "all are dead", func() bool { return s.ledger(sub.ID)["dead"] == 3 })
	s.replayDone(s.replay(sub.ID, map[string]any{"onlyDead": true}).ID)
	s.arrived(sub.ID, r, 4, dead)
	want := map[string]int{"0.1 live": 3, "0.2 retry": 3, "1.1 replay": 3, "1.2 retry": 3}
	if diff := cmp.Diff(want, s.causes(sub.ID)); diff != "" {
		t.Errorf("attempts (-want +got):\n%s", diff)
	}
	if r := s.replayDone(s.replay(sub.ID, map[string]any{"onlyDead": true}).ID); r.Matched != 0 {
		t.Errorf("replay = %+v, want nothing left", r)
	}
}

type deadLetter struct {
	ID         string `json:"id"`
	EventID    string `json:"eventId"`
	Status     string `json:"status"`
	ErrorClass string `json:"errorClass"`
}

func (s *system) deadLetters(query string) []deadLetter {
	s.t.Helper()
	var page struct {
		Items []deadLetter `json:"items"`
	}
	s.must(http.MethodGet, "/dead-letters?"+query, nil, &page)
	return page.Items
}

func TestDeadLettersAreListedRedrivenAndPurged(t *testing.T) {
	t.Parallel()
	s := newSystem(t, "")
	s.startAPI()
	s.startRelay()
	s.startDelivery(retry.Schedule{})
	broken := make(chan struct{})
	r := newSubscriber(t, answerUntil(broken))
	sub := s.subscribe(r.URL, nil, "E")
	ids := s.post("E", 6)
	topology, err := broker.NewTopology(s.broker)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = topology.Close() }()
	inQueue := func(n int) func() bool {
		return func() bool {
			messages, _, exists, err := topology.Depth(t.Context(), s.broker.Names().DeadQueue(sub.ID))
			return err == nil && exists && messages == n
		}
	}
	eventually(t, patience, "all are dead", func() bool { return s.ledger(sub.ID)["dead"] == 6 })
	eventually(t, patience, "their queue shows them", inQueue(6))

	list := s.deadLetters("subscription=" + sub.ID)
	if len(list) != 6 || list[0].EventID != ids[5] || list[0].ErrorClass != "status" {
		t.Fatalf("dead letters = %+v, want the six, the latest first", list)
	}
	for query, want := range map[string]int{
		"status=503": 6, "status=500": 0, "errorClass=status": 6, "errorClass=timeout": 0, "since=2001-01-01T00:00:00Z": 6,
		"until=2001-01-01T00:00:00Z": 0, "limit=2": 2,
	} {
		if n := len(s.deadLetters(query)); n != want {
			t.Errorf("%d dead letters with %s, want %d", n, query, want)
		}
	}
	var detail struct {
		AttemptsMade []struct {
			Run, Number int
			Cause       string
		} `json:"attemptsMade"`
		Request struct{ Body, Curl string } `json:"request"`
	}
	s.must(http.MethodGet, "/dead-letters/"+list[0].ID, nil, &detail)
	if sent := r.got(); len(detail.AttemptsMade) != 1 || !slices.ContainsFunc(sent, func(r request) bool { return string(r.body) == detail.Request.Body }) {
		t.Errorf("dead letter = %+v, want the attempt and the exact body that was sent", detail)
	}
	if !strings.Contains(detail.Request.Curl, ids[5]) || strings.Contains(detail.Request.Curl, sub.Secret) {
		t.Errorf("curl command is %s", detail.Request.Curl)
	}

	// Purging needs the count.
	var refused struct {
		Detail string `json:"detail"`
	}
	if status := s.do(http.MethodDelete, "/dead-letters?subscription="+sub.ID+"&confirm=5", nil, &refused); status != http.StatusConflict ||
		!strings.Contains(refused.Detail, "6") {
		t.Errorf("purge with a wrong count: %d %s, want 409 and the count", status, refused.Detail)
	}
	if n := s.ledger(sub.ID)["dead"]; n != 6 {
		t.Errorf("%d are dead after a refused purge, want 6", n)
	}

	close(broken)
	s.must(http.MethodPost, "/deliveries/"+list[0].ID+"/retry", nil, nil)
	eventually(t, patience, "the one is delivered", func() bool { return s.ledger(sub.ID)["delivered"] == 1 })
	if !inQueue(6)() {
		t.Error("the dead-letter queue was emptied although some are left")
	}
	s.must(http.MethodPost, "/dead-letters/redrive", map[string]any{"ids": []string{list[1].ID, list[2].ID}}, nil)
	eventually(t, patience, "the named ones are delivered", func() bool { return s.ledger(sub.ID)["delivered"] == 3 })
	s.must(http.MethodPost, "/dead-letters/redrive", map[string]any{"subscription": sub.ID, "status": 500}, nil)
	var gone struct {
		Purged int `json:"purged"`
	}
	s.must(http.MethodDelete, "/dead-letters?subscription="+sub.ID+"&confirm=3", nil, &gone)
	if counts := s.ledger(sub.ID); gone.Purged != 3 || counts["cancelled"] != 3 || counts["dead"] != 0 {
		t.Errorf("purged %d, ledger %v, want three cancelled", gone.Purged, counts)
	}
	eventually(t, patience, "their queue is emptied", inQueue(0))
	want := map[string]int{"0.1 live": 6, "1.1 redrive": 3}
	if diff := cmp.Diff(want, s.causes(sub.ID)); diff != "" {
		t.Errorf("attempts (-want +got):\n%s", diff)
	}
}
