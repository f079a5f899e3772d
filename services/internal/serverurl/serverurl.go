// Package serverurl parses server URLs with passwords.
//
// It promises that no error shows any part of a password, and that a password that should have been
// percent-encoded is detected before connecting: "postgres://user:pa@ss/word@db/name" has the host
// "ss" by the rules of URLs, and a lookup would send part of the password to a name server.
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

// Parse parses a URL with one of the schemes. The error mentions example and
// password, the name of the setting for a separate password.
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
		return nil, wrong("not a URL")
	}
	// If a character of the password ended the host too early, the "@" that
	// should precede the host is in the rest.
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
