package web_test

import (
	"strings"
	"testing"

	"posthorn/services/internal/web"
)

func TestAKeyThatCanBeGuessedIsRefused(t *testing.T) {
	t.Parallel()
	for _, key := range []string{
		"", "x", "admin", "                    ", "secret-of-15-by", strings.Repeat("a", 64), strings.Repeat("ab", 32), "a key with blanks in it",
		" 0123456789abcdef", "0123456789abcdef ", "0123456789abcdef\n", "0123456789abcdef\x00", "schlüssel-0123456789",
	} {
		if web.CheckKey(key) == nil {
			t.Errorf("%q is taken", key)
		}
	}
	for _, key := range []string{"0123456789abcdef", "6f1ed002ab5595859014ebf0951522d9", "correct-horse-battery-staple", "cG9zdGhvcm4tZGV2ZWxvcG1lbnQ="} {
		if err := web.CheckKey(key); err != nil {
			t.Errorf("%q: %v", key, err)
		}
	}
}
