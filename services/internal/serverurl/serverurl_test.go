package serverurl_test

import (
	"errors"
	"net/url"
	"strings"
	"testing"

	"posthorn/services/internal/serverurl"
)

func TestAPasswordThatHasToBeEncodedIsRecognised(t *testing.T) {
	t.Parallel()
	parse := func(raw string) (*url.URL, error) {
		return serverurl.Parse(raw, []string{"postgres", "postgresql"}, "postgres://user:password@host:5432/name", "PGPASSWORD")
	}
	for _, secret := range []string{
		"zq/vx", "zq?vx", "zq#vx", "zq@vx/kj", "zq@vx?kj", "zq@vx#kj", "zq%vx", "zq%zzvx", "zq vx", "5432/zq", "5432?zq", "5432#zq",
		"zq/vx@kj", "@/?#:%", "zq[vx", "zq]vx", "zq\x7fvx", "zq\nvx", "/zqvx", "?zqvx", "#zqvx", "zqvx/", "é/ß",
	} {
		raw := "postgres://user:" + secret + "@db.example:5432/name"
		_, err := parse(raw)
		if !errors.Is(err, serverurl.ErrInvalid) || !strings.Contains(err.Error(), "percent-encoded") || !strings.Contains(err.Error(), "PGPASSWORD") {
			t.Errorf("%q: %v", secret, err)
			continue
		}
		for piece := range strings.FieldsFuncSeq(secret, func(r rune) bool { return strings.ContainsRune("/?#@:% []\\\n\x7f", r) }) {
			if len(piece) > 1 && piece != "5432" && strings.Contains(err.Error(), piece) {
				t.Errorf("%q: the error shows a piece of it: %v", secret, err)
			}
		}
		u, err := parse("postgres://user:" + url.QueryEscape(secret) + "@db.example:5432/name")
		if got, _ := u.User.Password(); err != nil || u.Host != "db.example:5432" || strings.ReplaceAll(got, "+", " ") != secret {
			t.Errorf("%q, encoded: %v, %v", secret, u, err)
		}
	}
	for raw, host := range map[string]string{
		"postgres://u:p:w@h:5432/db": "h:5432", "postgres://u:p@w@h:5432/db": "h:5432", "postgresql://u@h/db?sslmode=disable": "h", "POSTGRES://h/db": "h", "postgres://u:p%40w@[::1]:1/db": "[::1]:1",
		"postgres:///db?host=%2Frun%2Fpostgresql": "", "postgres://u@/db?host=/run/postgresql": "", "postgres://u:p@h/d%40b?user=a%40b": "h",
	} {
		if u, err := parse(raw); err != nil || u.Host != host {
			t.Errorf("%s: %v, %v", raw, u, err)
		}
	}
	for _, raw := range []string{"", "user:secret@host/db", "host=h password=secret", "mysql://u:secret@h/db", "postgres:u:secret@h/db", "postgres://u:secret@/db", "//u:secret@h"} {
		if _, err := parse(raw); !errors.Is(err, serverurl.ErrInvalid) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: %v", raw, err)
		}
	}
}
