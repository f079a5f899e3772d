package relay

import (
	"errors"
	"fmt"
	"testing"

	"posthorn/services/internal/broker"
)

func TestAnEventThatIsRefusedIsNarrowedDownAndRerouted(t *testing.T) {
	t.Parallel()
	refused := fmt.Errorf("publish: %w: %w", broker.ErrNoConfirm, broker.ErrUnavailable)
	lost := fmt.Errorf("publish: %w", broker.ErrUnavailable)
	var s stuck
	want := func(window int, rerouted bool) {
		t.Helper()
		if got := s.width(1000); got != window {
			t.Errorf("window of %d, want %d", got, window)
		}
		if got := s.reason(7) != nil; got != rerouted {
			t.Errorf("rerouted %v, want %v", got, rerouted)
		}
	}
	want(1000, false)
	s.observe(7, refused)
	want(1, false)
	s.observe(7, refused)
	want(1, true)
	if s.reason(8) != nil {
		t.Error("another event is rerouted")
	}
	s.observe(0, errors.New("the lead is lost"))
	want(1, true)
	for width := 2; width < 1000; width *= 2 {
		s.observe(0, nil)
		want(width, false)
	}
	s.observe(0, nil)
	want(1000, false)

	// A refusal in the middle of a window counts for the first event that was not
	// confirmed; another position starts from zero.
	s.observe(6, refused)
	s.observe(7, refused)
	want(1, false)

	// Connections come and go: it takes many that end at one event, alone in its
	// window.
	s = stuck{}
	for range 6 {
		s.observe(7, lost)
		want(1, false)
	}
	s.observe(7, lost)
	want(1, true)

	// A broker alarm is not about an event.
	s = stuck{}
	for range 20 {
		s.observe(7, broker.ErrBlocked)
	}
	want(1000, false)
}
