package target

import (
	"errors"
	"strconv"
	"strings"
	"testing"
)

func TestValidateURLAccepts(t *testing.T) {
	t.Parallel()
	for _, raw := range []string{
		"http://example.com", "https://example.com/hooks?token=a%20b&c=%F0%9F%93%B7", "HTTPS://EXAMPLE.COM/",
		"http://example.com:8080/", "http://example.com:65535/", "http://localhost:3001/my-album", "http://localhost./",
		"http://127.0.0.1:3001/", "http://[::1]:3001/", "http://[2606:4700:4700::1111]/",
		"http://a_b.example/", "http://xn--bcher-kva.example/", "http://bücher.example/ü", "http://例え.jp/",
		"http://rabbitmq:15672/", "http://example.com/a:b@c", "http://1password.example/", "http://1.2.3.4.example/",
		"http://example.com/?u=a@b", "https://example.com./",
	} {
		if err := ValidateURL(raw); err != nil {
			t.Errorf("%s: %v", raw, err)
		}
	}
}

func TestAHostHasOneNameEverywhere(t *testing.T) {
	t.Parallel()
	for raw, want := range map[string]string{
		"http://B\u00dcCHER.test/":         "http://xn--bcher-kva.test/",
		"http://bücher.test:8080/Ü?Ä=Ö":    "http://xn--bcher-kva.test:8080/Ü?Ä=Ö",
		"http://bu\u0308cher.test/":        "http://xn--bcher-kva.test/", // decomposed
		"http://XN--BCHER-KVA.test/":       "http://xn--bcher-kva.test/",
		"http://faß.example/":              "http://xn--fa-hia.example/", // not "fass": another domain
		"http://例え.JP./a":                  "http://xn--r8jz45g.jp./a",
		"HTTPS://EXAMPLE.com/A/%2F?B=c%20": "https://example.com/A/%2F?B=c%20",
		"http://Example.COM?a/b":           "http://example.com?a/b",
		"http://EXAMPLE.com":               "http://example.com",
		"http://A_B.example:80/":           "http://a_b.example:80/",
		"http://[2606:4700::A]:80/":        "http://[2606:4700::a]:80/",
		"http://127.0.0.1:3001/x":          "http://127.0.0.1:3001/x",
	} {
		got, err := NormalizeURL(raw)
		if err != nil || got != want {
			t.Errorf("%q: %q, %v, want %q", raw, got, err, want)
		}
		if again, err := NormalizeURL(got); err != nil || again != got {
			t.Errorf("%q: normalised again it is %q, %v", raw, again, err)
		}
		u, err := ParseURL(raw)
		if err != nil || !strings.Contains(got, "://"+u.Host) {
			t.Errorf("%q is sent to %q", raw, u.Host)
		}
	}
	for _, raw := range []string{
		"http://xn--a.example/", "http://xn--.example/", "http://\u0301a.example/", "http://\u05d0a.example/", "http://a\u200db.example/", "http://ſ\u0338.example/\u2028",
		"http://" + strings.Repeat("ü", 63) + ".example/",
	} {
		if got, err := NormalizeURL(raw); !errors.Is(err, ErrInvalidURL) {
			t.Errorf("%q: %q, %v, want ErrInvalidURL", raw, got, err)
		}
	}
}

func TestValidateURLRefuses(t *testing.T) {
	t.Parallel()
	for _, raw := range []string{
		"", "example.com", "/path", "//example.com/", "mailto:a@b.example", "http:example.com", "http:/example.com", "http://", "http:///a", "http://:80/",
		"file:///etc/passwd", "gopher://example.com/", "ftp://example.com/", "javascript:alert(1)", "unix:///run/x", "ws://example.com/",
		// Another host after the apparent one.
		"http://a@127.0.0.1/", "http://a:b@example.com/", "http://@example.com/", "http://public#@127.0.0.1/", "http://example.com/#", "http://example.com\\@127.0.0.1/",
		// Control characters, plain and escaped.
		"http://x/%0d%0aHost:evil", "http://x/%0D%0A", "http://x/?a=%00", "http://x%0d%0a/", "http://x/\r\nHost: evil", "http://x/\x00", "http://x/\x7f", "http://x/%7f",
		" http://example.com/", "http://example.com/ ", "http://exa mple.com/", "http://example.com/\u2028", "http://example.com/\u0085", "http://example.com/\xff",
		// Ports.
		"http://x:0/", "http://x:25/", "http://x:6667/", "http://x:70000/", "http://x:65536/", "http://x:-1/", "http://x:/", "http://x:http/", "http://x:22/", "http://[::1]:6000/",
		// Numbers that are parsed as addresses, and other spellings of hosts.
		"http://2130706433/", "http://0177.0.0.1/", "http://0x7f.1/", "http://0x7f000001/", "http://127.1/", "http://1.2.3/", "http://1.2.3.4.5/", "http://256.0.0.1/",
		"http://127.0.0.01/", "http://0x/", "http://127.0.0.1./", "http://1.2.3.4.0xff/",
		"http://ⓛocalhost/", "http://①②⑦.0.0.1/", "http://１２７.0.0.1/", "http://٣.example/",
		"http://[fe80::1%25eth0]/", "http://[::1/", "http://[127.0.0.1]/", "http://[v1.a]/", "http://::1/",
		"http://a..b/", "http://.a/", "http://ex%61mple.com/", "http://exam,ple/", "http://exam*ple/", "http://<script>/", "http://a;b/",
		"http://" + strings.Repeat("a", 64) + ".example/", "http://" + strings.Repeat("a.", 127) + "a/",
		"http://example.com/" + strings.Repeat("a", 2048),
	} {
		err := ValidateURL(raw)
		if !errors.Is(err, ErrInvalidURL) {
			t.Errorf("%q: %v, want ErrInvalidURL", raw, err)
			continue
		}
		if len(raw) > 12 && strings.Contains(err.Error(), raw) {
			t.Errorf("the error shows the URL: %v", err)
		}
	}
}

func TestValidateURLAcceptsTheLongestURL(t *testing.T) {
	t.Parallel()
	const front = "http://example.com/"
	if err := ValidateURL(front + strings.Repeat("a", 2048-len(front))); err != nil {
		t.Error(err)
	}
}

func FuzzParseURLAgreesWithItsOwnRules(f *testing.F) {
	f.Add("http://example.com:8080/a?b=c")
	f.Add("http://a@[::1]:70000/%0d#")
	f.Add("http://0x7f.1/")
	f.Fuzz(func(t *testing.T, raw string) {
		u, err := ParseURL(raw)
		if err != nil {
			return
		}
		if u.User != nil || u.Fragment != "" || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			t.Errorf("%q: accepted as %#v", raw, u)
		}
		if port := u.Port(); port != "" {
			if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 || badPort(n) {
				t.Errorf("%q: port %s accepted", raw, port)
			}
		}
		if strings.ContainsAny(u.RequestURI()+u.Host, " \r\n\x00") {
			t.Errorf("%q: would be written as %q", raw, u.RequestURI())
		}
	})
}
