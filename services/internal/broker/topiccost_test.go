package broker_test

import (
	"context"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"posthorn/events"
)

// The limits on types and patterns bound the combinations that a topic exchange
// tries. The time limits are wide, since the machine may be busy: the worst
// pattern takes half a millisecond on an idle one, and without the limits it took
// seconds to minutes.
func TestTheWorstPatternsCostTheBrokerLittle(t *testing.T) {
	t.Parallel()
	words := func(word string, n int) string { return strings.TrimSuffix(strings.Repeat(word+".", n), ".") }
	worst, err := events.ParseType(words("a", events.MaxWords))
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		patterns []string
		within   time.Duration
	}{
		"two hashes":                  {[]string{"#.a.#.b"}, 50 * time.Millisecond},
		"two hashes and all words":    {[]string{"#." + words("a", 7) + ".#." + words("a", 6) + ".b"}, 50 * time.Millisecond},
		"two hashes among stars":      {[]string{"#.a." + words("*", 6) + ".#.a." + words("*", 5) + ".b"}, 50 * time.Millisecond},
		"all that the relay binds":    {everyPattern(t, "*", "* *", "#", "# at the end", "* # at the end"), 250 * time.Millisecond},
		"sixty-four hashes, shortest": {[]string{words("#", 63)}, 50 * time.Millisecond},
	} {
		for _, p := range c.patterns {
			short, err := events.ParsePattern(p)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if short != events.Pattern(p) {
				c.patterns = []string{string(short)}
			}
		}
		if took := routingTime(t, worst, c.patterns); took > c.within {
			t.Errorf("%s: an event takes %v, want at most %v", name, took, c.within)
		} else {
			t.Logf("%s: %v", name, took)
		}
	}
}

// everyPattern places wildcards at all possible places among the words of a
// type, with a last word that the type does not have.
func everyPattern(t *testing.T, forms ...string) (patterns []string) {
	t.Helper()
	for _, form := range forms {
		marks, atEnd := strings.CutSuffix(form, " # at the end")
		if form == "# at the end" {
			marks, atEnd = "", true
		}
		for n := 2; n <= events.MaxWords; n++ {
			place(strings.Fields(marks), 0, strings.Split(strings.TrimSuffix(strings.Repeat("a.", n-1)+"b", "."), "."), func(p string) {
				if atEnd {
					p = strings.TrimSuffix(p, ".b") + ".#"
				}
				patterns = append(patterns, p)
			})
		}
	}
	return patterns
}

func place(marks []string, from int, words []string, f func(pattern string)) {
	if len(marks) == 0 {
		f(strings.Join(words, "."))
		return
	}
	for i := from; i < len(words)-1; i++ {
		word := words[i]
		words[i] = marks[0]
		place(marks[1:], i+1, words, f)
		words[i] = word
	}
}

// routingTime is the shortest of several times from a publish to its confirm.
func routingTime(t *testing.T, eventType string, patterns []string) time.Duration {
	t.Helper()
	ch := newSite(t).channel(t)
	exchange := "test-cost-" + t.Name() + time.Now().Format(".150405.000000000")
	if err := ch.ExchangeDeclare(exchange, amqp.ExchangeTopic, false, true, false, false, nil); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ch.ExchangeDelete(exchange, false, false) }()
	q, err := ch.QueueDeclare("", false, true, true, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range patterns {
		if err := ch.QueueBind(q.Name, p, exchange, true, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := ch.Confirm(false); err != nil {
		t.Fatal(err)
	}
	best := patience
	for range 5 {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		begun := time.Now()
		confirm, err := ch.PublishWithDeferredConfirm(exchange, eventType, false, false, amqp.Publishing{})
		if err == nil {
			_, err = confirm.WaitContext(ctx)
		}
		cancel()
		if err != nil {
			t.Fatal(err)
		}
		best = min(best, time.Since(begun))
	}
	return best
}
