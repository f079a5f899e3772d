// Package serverurl reads the addresses of servers that have passwords in them.
//
// It promises that no error shows any piece of one, and that a password that
// should have been percent-encoded is recognised before anybody connects:
// "postgres://user:pa@ss/word@db/name" has the host "ss" by the rules of URLs, and
// looking it up would tell a name server a piece of the password.
package serverurl

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
)

// ErrInvalid is wrapped by every error of Parse.
var ErrInvalid = errors.New("invalid address of a server")

// Parse reads a URL with one of the schemes. example and password, the name of
// the setting that a password can be in by itself, are for the error.
func Parse(raw string, schemes []string, example, password string) (*url.URL, error) {
	wrong := func(what string) error {
		return fmt.Errorf("%w: %s; want %s, where / ? # @ : %% and blanks in the password are percent-encoded (/ is %%2F, ? %%3F, # %%23, @ %%40, : %%3A, %% %%25), or leave the password out and set %s",
			ErrInvalid, what, example, password)
	}
	scheme, rest, found := strings.Cut(raw, "://")
	if !found || !slices.Contains(schemes, strings.ToLower(scheme)) {
		return nil, wrong("it does not begin with " + schemes[0] + "://")
	}
	u, err := url.Parse(raw)
	if err != nil {
		// The parser's own error quotes the URL.
		return nil, wrong("it is no URL")
	}
	// Where a password's character ended the host too early, the "@" that should
	// have come before it is in what follows.
	authority := rest
	if i := strings.IndexAny(rest, "/?#"); i >= 0 {
		authority = rest[:i]
	}
	switch {
	case strings.Contains(rest[len(authority):], "@"):
		return nil, wrong("it has an @ behind its host")
	case strings.Contains(rest, "#"):
		return nil, wrong("it has a #")
	case u.Opaque != "" || u.Hostname() == "" && u.User != nil && u.Query().Get("host") == "":
		return nil, wrong("it has no host")
	}
	return u, nil
}
