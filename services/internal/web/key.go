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

// CheckKey reports whether a key is one that can be guessed, or that no client
// could send: short, with blanks in it, or of a few characters over and over.
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
