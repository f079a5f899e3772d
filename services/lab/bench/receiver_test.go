package bench

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"posthorn/events"
)

// receiving runs a receiver and returns a site that uses it.
func receiving(t *testing.T) *Site {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	r, err := NewReceiver(ctx)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	s := &Site{}
	s.deliveries, s.control = r.Addresses()
	return s
}

// deliver posts an event as net/http does, which is what Posthorn uses.
func deliver(t *testing.T, s *Site, subscriber string, numbers ...int) {
	t.Helper()
	for _, n := range numbers {
		text := appendEvent(nil, eventType, n, time.Now())
		body := string((events.Event{ID: "evt_" + strconv.Itoa(n), Type: eventType, OccurredAt: time.Now(), Data: text}).AppendBody(nil))
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+s.deliveries+"/"+subscriber, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		if err := response.Body.Close(); err != nil || response.StatusCode != http.StatusNoContent {
			t.Fatalf("status %d, %v", response.StatusCode, err)
		}
	}
}

func TestTheReceiverTellsWhatIsLostOrDuplicated(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name                         string
		one, two                     []int
		arrived, duplicated, strange int
	}{
		{name: "all", one: []int{0, 1, 2}, two: []int{2, 0, 1}, arrived: 6},
		{name: "one lost", one: []int{0, 1}, two: []int{2, 0, 1}, arrived: 5},
		{name: "one twice", one: []int{0, 1, 2, 1}, two: []int{2, 0, 1}, arrived: 6, duplicated: 1},
		{name: "one twice in the place of another", one: []int{0, 1, 1}, two: []int{0, 1, 2}, arrived: 5, duplicated: 1},
		{name: "one too many", one: []int{0, 1, 2, 3}, two: []int{0, 1, 2}, arrived: 6, strange: 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := receiving(t)
			if err := s.Expect(t.Context(), 3); err != nil {
				t.Fatal(err)
			}
			deliver(t, s, "one", c.one...)
			deliver(t, s, "two", c.two...)
			got, err := s.Tally(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if got.Arrived != c.arrived || got.Duplicated != c.duplicated || got.Strange != c.strange {
				t.Errorf("got %d, %d duplicated, %d strange", got.Arrived, got.Duplicated, got.Strange)
			}
			if err := got.Check(6); errors.Is(err, ErrIncorrect) != (c.name != "all") {
				t.Errorf("check: %v", err)
			}
			if got.Latency.Total != int64(c.arrived) || got.Latency.Max <= 0 || got.Latency.Max > time.Minute {
				t.Errorf("latency of %d, at most %v", got.Latency.Total, got.Latency.Max)
			}
		})
	}
}

func TestAwaitGivesUpWhenNothingMoreArrives(t *testing.T) {
	t.Parallel()
	s := receiving(t)
	if err := s.Expect(t.Context(), 3); err != nil {
		t.Fatal(err)
	}
	deliver(t, s, "one", 0, 1)
	if err := s.Await(t.Context(), 2, time.Minute); err != nil {
		t.Error(err)
	}
	if err := s.Await(t.Context(), 3, 50*time.Millisecond); !errors.Is(err, ErrIncorrect) {
		t.Errorf("got %v", err)
	}
}

func TestMarksAreMadeAtEachTenth(t *testing.T) {
	t.Parallel()
	begun := time.Now()
	c := counter{expected: 100}
	for i := range 100 {
		c.add(i, begun, begun.Add(time.Duration(i)*time.Second), true)
	}
	if len(c.tally.Marks) != tenths {
		t.Fatalf("%d marks", len(c.tally.Marks))
	}
	got := rates(&c.tally, 100)
	// The first tenth is from the first to the tenth event, nine seconds later.
	if len(got) != tenths || number(got[0]) != "1.11" || got[1] != 1 || got[9] != 1 {
		t.Errorf("rates %v", got)
	}
}

func TestANumberAndATimeGoThroughEventsAndLikes(t *testing.T) {
	t.Parallel()
	start := time.Unix(1_700_000_000, 123_456_789)
	event := appendEvent(nil, eventType, 4711, start)
	if len(event) != payloadBytes {
		t.Errorf("an event has %d bytes, want %d", len(event), payloadBytes)
	}
	like := []byte(`{"id":"evt_1","type":"LIKED_PHOTO","data":{"photoId":"4711-` + strconv.FormatInt(start.UnixNano(), 10) + `"}}`)
	for _, body := range [][]byte{event, like} {
		number, at, ok := readBody(body)
		if !ok || number != 4711 || !at.Equal(start) {
			t.Errorf("%s: got %d, %v, %v", body, number, at, ok)
		}
	}
	for _, body := range []string{"", "{}", `{"photoId":"x"}`, `{"photoId":"1"}`, `{"benchNumber":1}`} {
		if _, _, ok := readBody([]byte(body)); ok {
			t.Errorf("%s is taken for an event", body)
		}
	}
}
