package matching

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"posthorn/events"
)

func TestAnIndexFindsThoseWhoseMatcherMatches(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(7, 8))
	words := func(from ...string) string {
		list := make([]string, 1+random.IntN(3))
		for i := range list {
			list[i] = from[random.IntN(len(from))]
		}
		return strings.Join(list, ".")
	}
	var index Index[int]
	if got := index.Match("a"); len(got) != 0 {
		t.Fatalf("an empty index found %v", got)
	}
	matchers := map[int]Matcher{}
	found := 0
	for range 3_000 {
		key, patterns := random.IntN(20), make([]events.Pattern, random.IntN(4))
		for i := range patterns {
			patterns[i] = events.Pattern(words("a", "b", "*", "#"))
		}
		index.Set(key, patterns)
		if matchers[key] = New(patterns); len(patterns) == 0 {
			delete(matchers, key)
		}
		if index.Len() != len(matchers) {
			t.Fatalf("%d keys, want %d", index.Len(), len(matchers))
		}
		for range 3 { // some of them again, from the cache
			eventType := words("a", "b")
			var want []int
			for key, m := range matchers {
				if m.Match(eventType) {
					want = append(want, key)
				}
			}
			slices.Sort(want)
			got := index.Match(eventType)
			if !slices.Equal(got, want) {
				t.Fatalf("%q: %v, want %v", eventType, got, want)
			}
			found += len(got)
		}
	}
	if found < 3_000 {
		t.Errorf("only %d were found: the test shows little", found)
	}
}

func TestAnIndexKeepsBoundedAnswers(t *testing.T) {
	t.Parallel()
	var index Index[int]
	index.Set(1, []events.Pattern{"#"})
	for i := range 2*maxAnswers + 1 {
		index.Match("t" + strings.Repeat("a", i%100) + string(rune('a'+i%26)) + strings.Repeat("b", i/100))
		if len(index.answers) > maxAnswers {
			t.Fatalf("%d answers are kept", len(index.answers))
		}
	}
}
