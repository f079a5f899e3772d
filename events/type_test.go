package events_test

import (
	"errors"
	"math/rand/v2"
	"strings"
	"testing"

	"posthorn/events"
)

func TestPatternsMatchAsTopicBindingsDo(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		pattern     string
		match, miss []string
	}{
		{"a", []string{"a"}, []string{"b", "a.a", "A"}},
		{"*", []string{"a", "b"}, []string{"a.b"}},
		{"#", []string{"a", "a.b", "a.b.c"}, nil},
		{"a.*", []string{"a.b"}, []string{"a", "a.b.c", "b.a"}},
		{"a.#", []string{"a", "a.b", "a.b.c"}, []string{"b", "ab"}},
		{"#.a", []string{"a", "b.a", "c.b.a"}, []string{"a.b"}},
		{"*.*", []string{"a.b"}, []string{"a", "a.b.c"}},
		{"*.#", []string{"a", "a.b"}, nil},
		{"#.#", []string{"a", "a.b"}, nil},
		{"a.#.b", []string{"a.b", "a.x.b", "a.x.y.b", "a.b.b"}, []string{"a", "b", "a.b.x"}},
		{"a.#.b.#.c", []string{"a.b.c", "a.b.b.c.c"}, []string{"a.c.b"}},
		{"#.*.#", []string{"a", "a.b"}, nil},
	} {
		p, err := events.ParsePattern(test.pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range test.match {
			if !p.Match(s) {
				t.Errorf("%q does not match %q", p, s)
			}
		}
		for _, s := range test.miss {
			if p.Match(s) {
				t.Errorf("%q matches %q", p, s)
			}
		}
	}
}

// bySplitting implements the definition of the wildcards directly.
func bySplitting(pattern, words []string) bool {
	if len(pattern) == 0 {
		return len(words) == 0
	}
	if pattern[0] == "#" {
		for i := range len(words) + 1 {
			if bySplitting(pattern[1:], words[i:]) {
				return true
			}
		}
		return false
	}
	return len(words) > 0 && (pattern[0] == "*" || pattern[0] == words[0]) && bySplitting(pattern[1:], words[1:])
}

func TestMatchAgreesWithTheDefinition(t *testing.T) {
	t.Parallel()
	rnd := rand.New(rand.NewPCG(1, 2))
	words := func(from []string, most int) []string {
		w := make([]string, 1+rnd.IntN(most))
		for i := range w {
			w[i] = from[rnd.IntN(len(from))]
		}
		return w
	}
	for range 100_000 {
		pattern, eventType := words([]string{"a", "b", "*", "#"}, 6), words([]string{"a", "b"}, 6)
		got := events.Pattern(strings.Join(pattern, ".")).Match(strings.Join(eventType, "."))
		if want := bySplitting(pattern, eventType); got != want {
			t.Fatalf("%v matches %v: %v, want %v", pattern, eventType, got, want)
		}
	}
}

func TestParsePatternShortensRunsOfWildcards(t *testing.T) {
	t.Parallel()
	for given, want := range map[string]string{
		"#": "#", "#.#": "#", strings.TrimSuffix(strings.Repeat("#.", 64), "."): "#",
		"#.*": "*.#", "*.#": "*.#", "#.*.#": "*.#", "*.#.*.#.*": "*.*.*.#",
		"a.#.#.b": "a.#.b", "#.#.a.#.*": "#.a.*.#", "*.*": "*.*", "a.*.*.b": "a.*.*.b",
	} {
		if got, err := events.ParsePattern(given); err != nil || string(got) != want {
			t.Errorf("%q: %q, %v, want %q", given, got, err, want)
		}
	}
}

func TestTheShortFormMatchesLikeTheLongOne(t *testing.T) {
	t.Parallel()
	rnd := rand.New(rand.NewPCG(3, 4))
	words := func(from []string, most int) string {
		w := make([]string, 1+rnd.IntN(most))
		for i := range w {
			w[i] = from[rnd.IntN(len(from))]
		}
		return strings.Join(w, ".")
	}
	for range 100_000 {
		long, eventType := words([]string{"a", "*", "#"}, 7), words([]string{"a", "b"}, 6)
		short, err := events.ParsePattern(long)
		if err != nil {
			continue
		}
		if got, want := short.Match(eventType), events.Pattern(long).Match(eventType); got != want {
			t.Fatalf("%q matches %q: %v, and its short form %q: %v", long, eventType, want, short, got)
		}
	}
}

func TestTypesAndPatternsAreBounded(t *testing.T) {
	t.Parallel()
	many := func(word string, n int) string { return strings.TrimSuffix(strings.Repeat(word+".", n), ".") }
	for s, want := range map[string][2]bool{ // type, pattern
		many("a", 16): {true, true}, many("a", 17): {}, many("a", 60): {},
		many("*", 16): {false, true}, many("*", 17): {}, many("*.#", 15): {false, true}, many("*.#", 16): {},
		"#.a.#": {false, true}, "#.a.#.b.#": {}, "#.a.#.a.#.a.#.a.#.z": {}, many("#", 64): {false, true},
	} {
		_, typeErr := events.ParseType(s)
		_, patternErr := events.ParsePattern(s)
		for i, err := range []error{typeErr, patternErr} {
			if (err == nil) != want[i] || err != nil && !errors.Is(err, events.ErrInvalid) {
				t.Errorf("%q as a %s: %v, want accepted %v", s, []string{"type", "pattern"}[i], err, want[i])
			}
		}
	}
}

func TestAPatternOfManyHashesIsFast(t *testing.T) {
	t.Parallel()
	pattern := events.Pattern(strings.Repeat("#.a.", 30) + "b")
	if pattern.Match(strings.Repeat("a.", 60) + "a") {
		t.Error("matches a type without its last word")
	}
}

func TestTypesAndPatternsHaveAGrammar(t *testing.T) {
	t.Parallel()
	for s, want := range map[string][2]bool{ // type, pattern
		"LIKED_PHOTO": {true, true}, "a.b-c.D_4": {true, true}, strings.Repeat("a", 128): {true, true},
		"a.*": {false, true}, "#": {false, true}, "*.#.x": {false, true},
		"": {}, ".": {}, "a.": {}, ".a": {}, "a..b": {}, "a b": {}, "é": {}, "a*": {}, "#a": {}, "a.**": {}, "a/b": {},
		"a\n": {}, "a\x00": {}, strings.Repeat("a", 129): {}, "\xff": {},
	} {
		_, typeErr := events.ParseType(s)
		_, patternErr := events.ParsePattern(s)
		for i, err := range []error{typeErr, patternErr} {
			if (err == nil) != want[i] || err != nil && !errors.Is(err, events.ErrInvalid) {
				t.Errorf("%q as a %s: %v, want well formed %v", s, []string{"type", "pattern"}[i], err, want[i])
			}
		}
	}
}
