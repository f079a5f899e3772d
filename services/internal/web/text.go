package web

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// TextProblem returns the reason why text from a client is not a valid name or
// value, or "".
func TextProblem(text string, maxBytes int) string {
	switch {
	case text == "":
		return "is empty"
	case len(text) > maxBytes:
		return "is longer than " + strconv.Itoa(maxBytes) + " bytes"
	case !utf8.ValidString(text):
		return "is not UTF-8"
	case strings.ContainsFunc(text, func(c rune) bool { return c < ' ' || c == 0x7f }):
		return "has a control character in it"
	}
	return ""
}
