package matching

import (
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"

	"posthorn/events"
)

func TestExpressionsMatchAsPatternsDo(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(3, 4))
	words := func(from []string) string {
		list := make([]string, 1+random.IntN(4))
		for i := range list {
			list[i] = from[random.IntN(len(from))]
		}
		return strings.Join(list, ".")
	}
	for range 20_000 {
		pattern, eventType := words([]string{"a", "b-c", "A_1", "*", "#"}), words([]string{"a", "b-c", "A_1", "aa"})
		expression := regexp.MustCompile(PatternExpressions([]string{pattern})[0])
		if got, want := expression.MatchString("."+eventType), events.Pattern(pattern).Match(eventType); got != want {
			t.Fatalf("%s as %s matches %q: %v, want %v", pattern, expression, eventType, got, want)
		}
	}
}
