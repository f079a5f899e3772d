package events

import (
	"fmt"
	"strings"
)

// Limits of event types and of patterns. A topic exchange tries every way to
// split a type among the "#" of a pattern, so both bound its work: RabbitMQ
// 3.10 takes half a millisecond for the worst pattern within them, and minutes
// for one of 64 "#".
const (
	MaxTypeBytes = 128
	MaxWords     = 16
	// MaxHashes limits the "#" in a pattern.
	MaxHashes = 2
)

// ParseType returns the event type, or an error with the reason if it is
// invalid: a type is at most MaxWords words of letters, digits, "_" and "-",
// joined by dots, at most MaxTypeBytes long.
func ParseType(s string) (string, error) {
	if err := checkWords(s, "type", false); err != nil {
		return "", err
	}
	if n := strings.Count(s, ".") + 1; n > MaxWords {
		return "", fmt.Errorf("%w: type: %d words: want at most %d", ErrInvalid, n, MaxWords)
	}
	return s, nil
}

// Pattern selects event types the way a RabbitMQ topic binding does: words
// joined by dots, where "*" stands for exactly one word and "#" for any number
// of words, including none.
type Pattern string

// ParsePattern returns the pattern in its shortest form, or an error with the
// reason if it is invalid. In a run of wildcards with a "#" only the number of
// "*" counts, so the run becomes its "*" and one "#": "#.#" is "#", and "#.*.#"
// is "*.#". In this form a pattern has at most MaxWords words and MaxHashes
// "#".
func ParsePattern(s string) (Pattern, error) {
	if err := checkWords(s, "event type", true); err != nil {
		return "", err
	}
	words := shorten(strings.Split(s, "."))
	hashes := 0
	for _, word := range words {
		if word == "#" {
			hashes++
		}
	}
	switch {
	case len(words) > MaxWords:
		return "", fmt.Errorf("%w: event type: %d words: want at most %d", ErrInvalid, len(words), MaxWords)
	case hashes > MaxHashes:
		return "", fmt.Errorf("%w: event type: %d words are \"#\": want at most %d", ErrInvalid, hashes, MaxHashes)
	}
	return Pattern(strings.Join(words, ".")), nil
}

// shorten replaces each run of wildcards that has a "#" by its "*" and one "#".
func shorten(words []string) []string {
	short := words[:0]
	for i := 0; i < len(words); {
		hash := false
		for ; i < len(words) && (words[i] == "*" || words[i] == "#"); i++ {
			if words[i] == "#" {
				hash = true
			} else {
				short = append(short, "*")
			}
		}
		if hash {
			short = append(short, "#")
		}
		if i < len(words) {
			short = append(short, words[i])
			i++
		}
	}
	return short
}

// Exact reports whether the pattern is a plain type, without wildcards.
func (p Pattern) Exact() bool { return !strings.ContainsAny(string(p), "*#") }

// Match reports whether the pattern selects the type.
func (p Pattern) Match(eventType string) bool {
	if p.Exact() {
		return string(p) == eventType
	}
	return matchWords(strings.Split(string(p), "."), strings.Split(eventType, "."))
}

// matchWords backtracks only to the last "#", so that the work is bounded by
// the product of the lengths and not by the number of ways to split.
func matchWords(pattern, words []string) bool {
	p, w := 0, 0
	hash, resume := -1, 0
	for w < len(words) {
		switch {
		case p < len(pattern) && pattern[p] == "#":
			hash, resume = p, w
			p++
		case p < len(pattern) && (pattern[p] == "*" || pattern[p] == words[w]):
			p++
			w++
		case hash >= 0:
			resume++
			p, w = hash+1, resume
		default:
			return false
		}
	}
	for p < len(pattern) && pattern[p] == "#" {
		p++
	}
	return p == len(pattern)
}

func checkWords(s, what string, wildcards bool) error {
	if s == "" {
		return fmt.Errorf("%w: %s: empty", ErrInvalid, what)
	}
	if len(s) > MaxTypeBytes {
		return fmt.Errorf("%w: %s: longer than %d bytes", ErrInvalid, what, MaxTypeBytes)
	}
	for word := range strings.SplitSeq(s, ".") {
		if word == "" {
			return fmt.Errorf("%w: %s: has an empty word between, before or after dots", ErrInvalid, what)
		}
		if wildcards && (word == "*" || word == "#") {
			continue
		}
		for i := range len(word) {
			if !wordByte(word[i]) {
				if wildcards {
					return fmt.Errorf("%w: %s: want words of letters, digits, \"_\" and \"-\" joined by dots, or \"*\" and \"#\" as whole words", ErrInvalid, what)
				}
				return fmt.Errorf("%w: %s: want words of letters, digits, \"_\" and \"-\" joined by dots", ErrInvalid, what)
			}
		}
	}
	return nil
}

func wordByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '-'
}
