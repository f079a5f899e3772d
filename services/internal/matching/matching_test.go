package matching

import (
	"math/rand/v2"
	"strings"
	"testing"

	"posthorn/events"
)

func TestAMatcherSelectsWhatOneOfItsPatternsDoes(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(5, 6))
	words := func(from []string) string {
		list := make([]string, 1+random.IntN(4))
		for i := range list {
			list[i] = from[random.IntN(len(from))]
		}
		return strings.Join(list, ".")
	}
	selected := 0
	for range 5_000 {
		patterns := make([]events.Pattern, random.IntN(5))
		for i := range patterns {
			patterns[i] = events.Pattern(words([]string{"a", "b", "c", "*", "#"}))
		}
		eventType, want := words([]string{"a", "b", "c"}), false
		for _, p := range patterns {
			want = want || p.Match(eventType)
		}
		if got := New(patterns).Match(eventType); got != want {
			t.Fatalf("%q of %q: %v, want %v", eventType, patterns, got, want)
		}
		if want {
			selected++
		}
	}
	if selected < 500 {
		t.Errorf("only %d of 5,000 are selected: the test shows little", selected)
	}
	if (Matcher{}).Match("a") {
		t.Error("the zero value selects something")
	}
}
