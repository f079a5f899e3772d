package matching

import (
	"testing"

	"posthorn/events"
)

func TestOnlyCheapPatternsAreBindable(t *testing.T) {
	t.Parallel()
	for pattern, want := range map[events.Pattern]bool{
		"a.b.c": true, "#": true, "a.#": true, "#.a": true, "a.#.b": true, "*.*": true, "a.*.b.*": true, "*.a.#": true,
		"*.*.*": false, "#.*": false, "*.#.a": false, "#.a.#": false, "a.*.*.#": false,
		"#.#": false, "#.a.#.b.#": false, "a..b": false, "": false,
	} {
		if got := Bindable([]events.Pattern{"x", pattern}); got != want {
			t.Errorf("%q: %v, want %v", pattern, got, want)
		}
	}
}
