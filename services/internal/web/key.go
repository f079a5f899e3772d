package web

import (
	"errors"
	"strings"
)

const (
	minKeyBytes      = 16
	minKeyCharacters = 6
)

// ErrWeakKey is returned by CheckKey.
var ErrWeakKey = errors.New("want at least 16 random visible ASCII characters, for example from: openssl rand -hex 24")

// CheckKey refuses a key that can be guessed, or that no client could send: a
// short one, one with blanks, or one of a few repeated characters.
func CheckKey(key string) error {
	distinct := map[rune]bool{}
	for _, c := range key {
		distinct[c] = true
	}
	invisible := strings.ContainsFunc(key, func(c rune) bool { return c <= ' ' || c > '~' })
	if len(key) < minKeyBytes || len(distinct) < minKeyCharacters || invisible {
		return ErrWeakKey
	}
	return nil
}
