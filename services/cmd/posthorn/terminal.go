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

// terminal is a writer for what may be shown on one: characters that a
// terminal could obey, or that hide or reorder others, arrive as escapes. All
// output of all commands goes through it, so no command has to think of it.
//
// The escapes are those of JSON, which such characters can only be in the
// strings of, so that JSON stays JSON with the same value.
type terminal struct {
	w  io.Writer
	mu sync.Mutex // a command writes, and the parts that it runs log
	// rest is the beginning of a character whose end is yet to be written.
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

// flush writes what was taken for the beginning of a character.
func (t *terminal) flush() {
	t.mu.Lock()
	defer t.mu.Unlock()
	_, _ = t.w.Write(appendPrintable(nil, t.rest)) // nobody is left to tell
	t.rest = nil
}

// wholeRunes is how much of the text is not the beginning of a character at
// its end.
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

// printable reports whether a character may be shown as it is.
func printable(r rune) bool { return unicode.IsPrint(r) }

// appendPrintable appends text with an escape for each character that is not
// printable, but for line ends and tabs.
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
