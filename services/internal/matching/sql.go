package matching

import (
	"strings"

	"posthorn/events"
)

// PatternExpressions returns topic patterns as regular expressions over a type
// with a dot before it: "*" is one word and "#" any number of words.
//
// posthorn.type_matches does the same for patterns that are in the database. It
// builds the expression again for each row, which took more than twice as long
// over a log, so patterns that are known before the query are converted here.
func PatternExpressions(patterns []string) []string {
	expressions := make([]string, len(patterns))
	for i, p := range patterns {
		var b strings.Builder
		for word := range strings.SplitSeq(p, ".") {
			switch word {
			case "#":
				b.WriteString(`(\.[^.]+)*`)
			case "*":
				b.WriteString(`\.[^.]+`)
			default:
				b.WriteString(`\.` + word) // letters, digits, _ and -
			}
		}
		expressions[i] = "^" + b.String() + "$"
	}
	return expressions
}

// PatternTexts returns patterns as the database stores them.
func PatternTexts(patterns []events.Pattern) []string {
	texts := make([]string, len(patterns))
	for i, p := range patterns {
		texts[i] = string(p)
	}
	return texts
}
