package api_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"posthorn/services/internal/eventlog"
	"posthorn/services/photos"
)

func (s *server) likes(id string) int64 {
	s.t.Helper()
	var p struct {
		ID    string
		Likes int64
	}
	s.do("GET", "/photos/"+id, "").want(200).decode(&p)
	return p.Likes
}

func TestALikeIsAnEvent(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	for _, r := range []reply{
		s.do("GET", "/like/123", ""), s.do("POST", "/like/123", ""), s.do("POST", "/like/123", `{}`),
	} {
		e := r.want(202).event()
		if e.Type != "LIKED_PHOTO" || e.Subject != "photo/123" || e.ID == "" || r.Header.Get("Location") != "/events/"+e.ID {
			t.Errorf("answer %s", r.Body)
		}
	}
	if got := s.likes("123"); got != 3 {
		t.Errorf("%d likes, want 3", got)
	}
	if e := s.do("DELETE", "/like/123", "").want(202).event(); e.Type != "UNLIKED_PHOTO" {
		t.Errorf("answer %+v", e)
	}
	if got := s.likes("123"); got != 2 {
		t.Errorf("%d likes, want 2", got)
	}
}

func TestHeadChangesNothing(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.do("HEAD", "/like/123", "").want(200)
	if n := s.events(); n != 0 {
		t.Errorf("%d events", n)
	}
}

func TestAForeignPageCannotLikeOrChange(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.do("POST", "/like/1", "", "Sec-Fetch-Site", "cross-site").want(403)
	s.do("POST", "/subscription/x/pause", "", "Origin", "https://evil.example").want(403)
	if n := s.events(); n != 0 {
		t.Errorf("%d events", n)
	}
}

func TestPhotoIDsAreKeptAsSent(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	for sent, id := range map[string]string{"caf%C3%A9": "café", "a%2Fb": "a/b", "100%25": "100%", "100%2525": "100%25", "a+b": "a+b", "a%20b%2F%25": "a b/%"} {
		if e := s.do("GET", "/like/"+sent, "").want(202).event(); e.Subject != "photo/"+id {
			t.Errorf("%s: subject %q, want photo/%s", sent, e.Subject, id)
		}
		var p struct{ ID string }
		s.do("GET", "/photos/"+sent, "").want(200).decode(&p)
		if p.ID != id || s.likes(sent) != 1 {
			t.Errorf("%s: shown as %q", sent, p.ID)
		}
	}
}

func TestLikingTwiceIsOneLikeAndOneEvent(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	first := s.do("POST", "/like/1", `{"userId":"ann"}`).want(202).event()
	for _, r := range []reply{
		s.do("POST", "/like/1", `{"userId":"ann"}`), s.do("GET", "/like/1?userId=ann", ""), s.do("POST", "/like/1?userId=ann", `{"userId":"ann"}`),
	} {
		if e := r.want(202).event(); e.ID != first.ID || e.Position != first.Position || !e.Duplicate {
			t.Errorf("again %+v, first %+v", e, first)
		}
	}
	s.do("POST", "/like/1?userId=bob", "").want(202)
	if s.events() != 2 || s.likes("1") != 2 {
		t.Errorf("%d events, %d likes", s.events(), s.likes("1"))
	}
	s.do("DELETE", "/like/1?userId=ann", "").want(202)
	s.do("DELETE", "/like/1?userId=ann", "").want(404)
	if s.events() != 3 || s.likes("1") != 1 {
		t.Errorf("%d events, %d likes", s.events(), s.likes("1"))
	}
	if e := s.do("POST", "/like/1?userId=ann", "").want(202).event(); e.ID == first.ID || e.Duplicate {
		t.Errorf("liked again %+v", e)
	}
}

func TestConcurrentLikesOfOneUserAreOneLike(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	var wg sync.WaitGroup
	var mu sync.Mutex
	fresh := 0
	for i := range 64 {
		wg.Go(func() {
			e := s.do("POST", fmt.Sprintf("/like/%d?userId=ann", i%2), "").want(202).event()
			mu.Lock()
			defer mu.Unlock()
			if !e.Duplicate {
				fresh++
			}
		})
	}
	wg.Wait()
	if s.events() != 2 || fresh != 2 {
		t.Errorf("%d events, %d fresh answers", s.events(), fresh)
	}
}

func TestLikesAndUnlikesOfManyDoNotDeadlock(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	var wg sync.WaitGroup
	for i := range 32 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(1, uint64(i)))
			for range 20 {
				path := fmt.Sprintf("/like/%d?userId=u%d", r.IntN(3), r.IntN(3))
				if r.IntN(2) == 0 {
					s.do("POST", path, "").want(202)
				} else if got := s.do("DELETE", path, ""); got.Status != 202 && got.Status != 404 {
					t.Errorf("DELETE %s: %d %s", path, got.Status, got.Body)
				}
			}
		})
	}
	wg.Wait()
	rows := s.count(`SELECT count(*) FROM posthorn.likes`)
	if sum := s.likes("0") + s.likes("1") + s.likes("2"); sum != rows {
		t.Errorf("%d likes are counted, %d are stored", sum, rows)
	}
}

func TestALikeWithAKeyCountsOnce(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	for range 3 {
		if e := s.do("POST", "/like/1", "", "Idempotency-Key", "k").want(202).event(); e.ID != "k" {
			t.Errorf("answer %+v", e)
		}
	}
	s.do("POST", "/like/2", "", "Idempotency-Key", "k").want(409)
	if s.likes("1") != 1 || s.likes("2") != 0 {
		t.Errorf("likes %d and %d", s.likes("1"), s.likes("2"))
	}
}

// The count of a photo is right whether the projector has read all of the log,
// some of it or none, and after a rebuild; it never goes below zero in between.
func TestTheLikeCountIsTheFoldOfTheLog(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	r := rand.New(rand.NewPCG(7, 7))
	want := map[string]int64{}
	check := func(when string) {
		t.Helper()
		for id, n := range want {
			if got := s.likes(id); got != n {
				t.Errorf("%s: photo %s has %d likes, want %d", when, id, got, n)
			}
		}
	}
	p, err := photos.NewProjector(photos.Config{DB: s.db, Window: 7})
	if err != nil {
		t.Fatal(err)
	}
	for round := range 20 {
		var batch []json.RawMessage
		for range 30 {
			id := fmt.Sprint(r.IntN(4))
			e := fmt.Sprintf(`{"type":"LIKED_PHOTO","subject":"photo/%s"}`, id)
			switch r.IntN(5) {
			case 0, 1, 2:
				e = fmt.Sprintf(`{"type":"UNLIKED_PHOTO","subject":"photo/%s"}`, id)
				want[id] = max(0, want[id]-1)
			case 3:
				want[id]++
			default:
				e = `{"type":"LIKED_PHOTO","subject":"photo/"}` // of no photo
			}
			batch = append(batch, json.RawMessage(e))
		}
		body, err := json.Marshal(batch)
		if err != nil {
			t.Fatal(err)
		}
		s.do("POST", "/events", string(body)).want(202)
		check("before the projection")
		horizon, err := eventlog.Horizon(t.Context(), s.db)
		if err != nil {
			t.Fatal(err)
		}
		if _, led, err := photos.ProjectPhotos(t.Context(), s.db, horizon, 1+r.IntN(50)); err != nil || !led {
			t.Fatalf("led %v: %v", led, err)
		}
		check("within the projection")
		if round%5 == 0 {
			last := int64(-1)
			if err := p.Rebuild(t.Context(), func(position, end int64) {
				if position < last || position > end {
					t.Errorf("progress %d after %d of %d", position, last, end)
				}
				last = position
			}); err != nil {
				t.Fatal(err)
			}
			check("after a rebuild")
		}
	}
}
