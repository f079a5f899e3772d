package target

import (
	"errors"
	"net/url"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestNormalizeURLTakesEverySpelling(t *testing.T) {
	t.Parallel()
	for raw, want := range map[string]string{
		"http://bu\u0308cher.test/":       "http://xn--bcher-kva.test/", // in two characters
		"http://B%C3%9CCHER.test/":        "http://xn--bcher-kva.test/",
		"http://ｂücher．test/":             "http://xn--bcher-kva.test/", // full width
		"http://bücher。test:8080/a":       "http://xn--bcher-kva.test:8080/a",
		"http://XN--BCHER-KVA.test/":      "http://xn--bcher-kva.test/",
		"https://faß.example./ü?q=Ü&T=A":  "https://xn--fa-hia.example./ü?q=Ü&T=A",
		"http://例え.テスト":                   "http://xn--r8jz45g.xn--zckzah",
		"http://مثال.إختبار/":             "http://xn--mgbh0fb.xn--kgbechtv/",
		"http://my_host.bücher.test/":     "http://my_host.xn--bcher-kva.test/",
		"http://r3---sn-x.bücher.test/":   "http://r3---sn-x.xn--bcher-kva.test/",
		"http://ｌocalhost:3001/":          "http://localhost:3001/",
		"HTTP://Example.com/Path%2f?x=%7": "http://example.com/Path%2f?x=%7",
	} {
		if got, err := NormalizeURL(raw); err != nil || got != want {
			t.Errorf("%q: %q, %v, want %q", raw, got, err, want)
		}
	}
	for _, raw := range []string{
		"http://xn--BCHER-2pa.test/",                                                  // punycode of capitals, another domain
		"http://p\u0430ypal.test/", "http://ex\u0430mple.test/", "http://αlpha.test/", // two scripts
		"http://bü_cher.test/", "http://-bücher.test/", "http://bücher-.test/", "http://\ufe0f.test/", "http://。test/",
		"http://bücher..test/", "http://bücher。。test/", "http://%ff.test/", "http://%E2%80%AE.test/", "http://b\u00adücher.test/",
	} {
		if got, err := NormalizeURL(raw); !errors.Is(err, ErrInvalidURL) {
			t.Errorf("%q: %q, %v, want ErrInvalidURL", raw, got, err)
		}
	}
}

func TestNormalizeURLStays(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		raw := "http://" + rapid.StringN(1, 20, -1).Draw(t, "host") + ".test:8080/a?b"
		normal, err := NormalizeURL(raw)
		if err != nil {
			return
		}
		u, err := url.Parse(normal)
		if err != nil || !isASCII(u.Host) || u.Host != strings.ToLower(u.Host) {
			t.Fatalf("%q became %q: %v", raw, normal, err)
		}
		if again, err := NormalizeURL(normal); err != nil || again != normal {
			t.Fatalf("%q became %q: %v", normal, again, err)
		}
	})
}
