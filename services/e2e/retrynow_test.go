package e2e_test

import (
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
)

// TestWaitingRetriesCanBeMadeAtOnce has a receiver that is repaired while its
// deliveries wait for an hour.
func TestWaitingRetriesCanBeMadeAtOnce(t *testing.T) {
	t.Parallel()
	for name, hurry := range map[string]func(s *system, sub subscribed, dlv []string){
		"by retrying each": func(s *system, _ subscribed, dlv []string) {
			for _, id := range dlv {
				s.must(http.MethodPost, "/deliveries/"+id+"/retry", nil, nil)
			}
		},
		"by redriving those that are named": func(s *system, _ subscribed, dlv []string) {
			s.must(http.MethodPost, "/dead-letters/redrive", map[string]any{"ids": dlv}, nil)
		},
		"by redriving the subscription's": func(s *system, sub subscribed, _ []string) {
			s.must(http.MethodPost, "/dead-letters/redrive", map[string]any{"subscription": sub.ID, "status": 500}, nil)
		},
		"by a replay": func(s *system, sub subscribed, _ []string) {
			s.must(http.MethodPost, "/replays", map[string]any{"subscription": sub.ID, "from": "beginning"}, nil)
		},
		"by a shorter schedule": func(s *system, sub subscribed, _ []string) {
			s.must(http.MethodPatch, "/subscription/"+sub.ID, map[string]any{"retry": map[string]any{"schedule": []string{"1s"}}}, nil)
		},
		"by a schedule without retries": func(s *system, sub subscribed, _ []string) {
			s.must(http.MethodPatch, "/subscription/"+sub.ID, map[string]any{"retry": map[string]any{"schedule": []string{}}}, nil)
		},
		"by a shorter schedule while it is paused": func(s *system, sub subscribed, _ []string) {
			s.must(http.MethodPost, "/subscription/"+sub.ID+"/pause", nil, nil)
			s.must(http.MethodPatch, "/subscription/"+sub.ID, map[string]any{"retry": map[string]any{"schedule": []string{"1s"}}}, nil)
			s.must(http.MethodPost, "/subscription/"+sub.ID+"/resume", nil, nil)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := startSystem(t)
			var repaired atomic.Bool
			r := newSubscriber(t, func(int, *http.Request) int {
				if repaired.Load() {
					return http.StatusOK
				}
				return http.StatusInternalServerError
			})
			sub := s.subscribe(r.URL, map[string]any{"retry": map[string]any{"schedule": []string{"1h"}}}, "E")
			ids := s.post("E", 5)
			eventually(t, patience, "all wait for a retry", func() bool { return s.ledger(sub.ID)["retrying"] == len(ids) })
			var dlv []string
			for _, id := range ids {
				var page struct{ Items []struct{ DeliveryID string } }
				s.must(http.MethodGet, "/events/"+id+"/deliveries", nil, &page)
				dlv = append(dlv, page.Items[0].DeliveryID)
			}
			repaired.Store(true)
			hurry(s, sub, dlv)
			eventually(t, 2*patience, "all are delivered", func() bool { return s.ledger(sub.ID)["delivered"] == len(ids) })
			if n := len(r.got()); n != 2*len(ids) {
				t.Errorf("%d requests for %d events, want two each", n, len(ids))
			}
		})
	}
}

// TestAShorterScheduleKeepsARetryAfter has a receiver that sends a long
// Retry-After, which overrides any schedule.
func TestAShorterScheduleKeepsARetryAfter(t *testing.T) {
	t.Parallel()
	s := startSystem(t)
	busy := newSubscriber(t, nil)
	asked := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Retry-After", "3000")
		w.WriteHeader(http.StatusServiceUnavailable)
		busy.Config.Handler.ServeHTTP(httptest.NewRecorder(), r)
	}))
	t.Cleanup(asked.Close)
	sub := s.subscribe(asked.URL, map[string]any{"retry": map[string]any{"schedule": []string{"30s"}}}, "E")
	other := s.subscribe(newSubscriber(t, func(int, *http.Request) int { return http.StatusInternalServerError }).URL,
		map[string]any{"retry": map[string]any{"schedule": []string{"1h", "1h"}}}, "E")
	s.post("E", 1)
	eventually(t, patience, "both wait", func() bool { return s.ledger(sub.ID)["retrying"] == 1 && s.ledger(other.ID)["retrying"] == 1 })
	shorter := map[string]any{"retry": map[string]any{"schedule": []string{"1s"}}}
	s.must(http.MethodPatch, "/subscription/"+sub.ID, shorter, nil)
	s.must(http.MethodPatch, "/subscription/"+other.ID, shorter, nil)
	eventually(t, 2*patience, "the other one is hurried", func() bool { return s.ledger(other.ID)["dead"] == 1 })
	if n := len(busy.got()); n != 1 {
		t.Errorf("%d requests to the receiver that asked for 50 minutes, want 1", n)
	}
}
