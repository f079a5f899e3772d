package main

import (
	"fmt"
	"io"
	"slices"
	"sync"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// terminal is a writer for output that may reach a terminal: characters that a
// terminal could obey, or that hide or reorder others, are escaped. All output
// of all commands goes through it, so that no command can forget it.
//
// The escapes are those of JSON, where such characters occur only in strings,
// so that JSON stays JSON with the same value.
type terminal struct {
	w  io.Writer
	mu sync.Mutex // a command writes while the parts that it runs log
	// rest is the beginning of a character whose end has not been written yet.
	rest []byte
}

// Write implements io.Writer.
func (t *terminal) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	text := slices.Concat(t.rest, b)
	whole := wholeRunes(text)
	if _, err := t.w.Write(appendPrintable(nil, text[:whole])); err != nil {
		return 0, fmt.Errorf("write: %w", err)
	}
	t.rest = text[whole:]
	return len(b), nil
}

// flush writes the held bytes of an incomplete character.
func (t *terminal) flush() {
	t.mu.Lock()
	defer t.mu.Unlock()
	_, _ = t.w.Write(appendPrintable(nil, t.rest)) // there is nothing left to report the error to
	t.rest = nil
}

// wholeRunes is the length of the text without an incomplete character at its
// end.
func wholeRunes(text []byte) int {
	for i := len(text) - 1; i >= 0 && i >= len(text)-utf8.UTFMax; i-- {
		if utf8.RuneStart(text[i]) {
			if !utf8.FullRune(text[i:]) {
				return i
			}
			break
		}
	}
	return len(text)
}

// printable reports whether a character may be shown unescaped.
func printable(r rune) bool { return unicode.IsPrint(r) }

// appendPrintable appends text with an escape for each character that is not
// printable, except line ends and tabs.
func appendPrintable(dst, text []byte) []byte {
	for len(text) > 0 {
		r, size := utf8.DecodeRune(text)
		switch {
		case r == utf8.RuneError && size == 1:
			dst = fmt.Appendf(dst, `\x%02x`, text[0])
		case r == '\n' || r == '\t' || printable(r):
			dst = append(dst, text[:size]...)
		default:
			dst = appendEscaped(dst, r)
		}
		text = text[size:]
	}
	return dst
}

// appendEscaped appends a character as JSON writes it in a string.
func appendEscaped(dst []byte, r rune) []byte {
	if high, low := utf16.EncodeRune(r); high != unicode.ReplacementChar {
		return fmt.Appendf(dst, `\u%04x\u%04x`, high, low)
	}
	return fmt.Appendf(dst, `\u%04x`, r)
}
