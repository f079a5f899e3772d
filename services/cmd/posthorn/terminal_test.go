package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
)

func TestATerminalGetsOnlyPrintableCharacters(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"plain é 例\n\tx": "plain é 例\n\tx", "\x1b[31m": `\u001b[31m`, "\u0085\u009b": `\u0085\u009b`, "\x7f": `\u007f`,
		"a\u202eb\u200b\u2066\ufeff": `a\u202eb\u200b\u2066\ufeff`, "\u2028\u00a0\u3000": `\u2028\u00a0\u3000`,
		"\r": `\u000d`, "\x00": `\u0000`, "\xff\xc3(": `\xff\xc3(`, "\U000e0001": `\udb40\udc01`, "\xf0\x9f\x98": `\xf0\x9f\x98`,
	} {
		for _, chunk := range []int{1, 2, 3, 100} {
			var out bytes.Buffer
			w := &terminal{w: &out}
			for rest := []byte(text); len(rest) > 0; {
				n := min(chunk, len(rest))
				if _, err := w.Write(rest[:n]); err != nil {
					t.Fatal(err)
				}
				rest = rest[n:]
			}
			w.flush()
			if out.String() != want {
				t.Errorf("%q in pieces of %d: %q, want %q", text, chunk, out.String(), want)
			}
		}
	}
}

func TestJSONIsTheSameValueBehindATerminal(t *testing.T) {
	t.Parallel()
	const value = "a\u0085\u009b\u202e\u200b\U000e0001\U0001f600é"
	var out bytes.Buffer
	if err := json.NewEncoder(&terminal{w: &out}).Encode(value); err != nil {
		t.Fatal(err)
	}
	var got string
	if err := json.Unmarshal(out.Bytes(), &got); err != nil || got != value || strings.ContainsRune(out.String(), '\u202e') {
		t.Errorf("%s: %q, %v, want %q", out.Bytes(), got, err, value)
	}
}
