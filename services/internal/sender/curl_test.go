package sender_test

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"posthorn/services/internal/sender"
)

func TestACurlLineComesThroughTheShellAsItWas(t *testing.T) {
	t.Parallel()
	for _, body := range []string{
		`{"a":"it's"}`, "", "{\n\t\"a\": 1\r}", `"$HOME $(id) \\ \" ! * [a] {b,c}"`, "\"\u009b31m\u202e'\u007f\"", "\xff\ufffd'\\x41", "é",
	} {
		const url = "http://example.com/?a=[1]{2}&b='$(id)'"
		line := sender.CurlLine(url, map[string]string{"B": "it's $HOME", "A": "", "C": "x"}, []byte(body))
		for _, r := range line {
			if r < ' ' || r >= 0x7f && r <= 0x9f || r == 0x202e {
				t.Errorf("character %U is in %q", r, line)
			}
		}
		// A curl that prints its arguments.
		script := `curl() { printf '%s\0' "$@"; }; ` + line
		out, err := exec.CommandContext(t.Context(), "bash", "-c", script).Output()
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		want := []string{
			"-i", "--globoff", "-X", "POST", url, "-H", "A;", "-H", "B: it's $HOME", "-H", "C: x", "--data-raw", body,
		}
		if diff := cmp.Diff(want, strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00")); diff != "" {
			t.Errorf("%q (-want +got):\n%s", body, diff)
		}
	}
}
