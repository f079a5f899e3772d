package sender

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// CurlLine returns a shell command that repeats a request. It quotes all
// external text, and contains no control sequence that could reach a terminal.
func CurlLine(url string, headers map[string]string, body []byte) string {
	var b strings.Builder
	b.WriteString("curl -i --globoff -X POST " + quoteShell(url))
	for _, name := range slices.Sorted(maps.Keys(headers)) {
		if headers[name] == "" {
			b.WriteString(" -H " + quoteShell(name+";")) // curl's syntax for a header without a value
			continue
		}
		b.WriteString(" -H " + quoteShell(name+": "+headers[name]))
	}
	b.WriteString(" --data-raw " + quoteShell(string(body)))
	return b.String()
}

// quoteShell quotes for any shell of the Bourne family. Text with control or
// direction characters, which a terminal might obey or hide, is quoted as
// $'...', for bash, zsh and the like.
func quoteShell(s string) string {
	if !strings.ContainsFunc(s, unseen) {
		return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
	}
	var b strings.Builder
	b.WriteString("$'")
	for i, r := range s {
		switch {
		case r == '\ufffd' && !strings.HasPrefix(s[i:], "\ufffd"): // a byte that is not UTF-8
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case r == '\'' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case unseen(r):
			for _, c := range []byte(string(r)) {
				fmt.Fprintf(&b, `\x%02x`, c)
			}
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('\'')
	return b.String()
}

// unseen also returns true for the replacement of a byte that is not UTF-8.
func unseen(r rune) bool {
	return r < ' ' || r >= 0x7f && r <= 0x9f || r == 0x061c || r >= 0x200e && r <= 0x200f ||
		r >= 0x2028 && r <= 0x202e || r >= 0x2066 && r <= 0x2069 || r == '\ufffd'
}
