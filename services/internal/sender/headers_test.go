package sender

import (
	"errors"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestOfAResponseOnlyHarmlessValuesAreKept(t *testing.T) {
	t.Parallel()
	got := keepResponse(http.Header{
		"Content-Type": {"text/plain"}, "Retry-After": {"5"}, "X-Request-Id": {"abc"}, "Ratelimit-Remaining": {"3"}, "X-Ratelimit-Reset": {"9"},
		"X-Session": {"secret"}, "X-Amz-Signature": {"secret"}, "Set-Cookie": {"a=secret", "b=secret"}, "Authorization": {"secret"}, "X-Anything": {"secret"},
		"Www-Authenticate": {"Digest nonce=secret"}, "Etag": {"secret"}, "Link": {"<https://a.example/?token=secret>"},
		"Location": {"https://a.example/hook?token=secret"},
	})
	want := map[string]string{
		"Content-Type": "text/plain", "Retry-After": "5", "X-Request-Id": "abc", "Ratelimit-Remaining": "3", "X-Ratelimit-Reset": "9",
		"X-Session": redacted, "X-Amz-Signature": redacted, "Set-Cookie": redacted, "Authorization": redacted, "X-Anything": redacted,
		"Www-Authenticate": redacted, "Etag": redacted, "Link": redacted, "Location": "https://a.example/hook?" + redacted,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("kept (-want +got):\n%s", diff)
	}
}

func TestWithoutQuery(t *testing.T) {
	t.Parallel()
	for location, want := range map[string]string{
		"https://h.example/a?b=c#d": "https://h.example/a?[redacted]",
		"https://h.example/a#d?e":   "https://h.example/a",
		"/a/b":                      "/a/b",
		"?token=a":                  "?[redacted]",
		"":                          "",
		"//u@h.example/@a":          "//[redacted]@h.example/@a",
		"//u:p@h.example":           "//[redacted]@h.example",
		"https://h.example/a@b":     "https://h.example/a@b",
		"mailto:u@h.example":        "[redacted]",
		"/a?next=https://h.example": "/a?[redacted]",
		"//h/a, https://u:p@h2/":    "[redacted]",
		"https://u:p%@h.example/":   "[redacted]",
		"http://[::1":               "[redacted]",
		"https://h.example/%zz":     "[redacted]",
	} {
		if got := withoutQuery(location); got != want {
			t.Errorf("%q: %q, want %q", location, got, want)
		}
	}
}

func TestValidateHeaders(t *testing.T) {
	t.Parallel()
	many := http.Header{}
	for i := range 33 {
		many.Set("X-"+strconv.Itoa(i), "a")
	}
	for name, c := range map[string]struct {
		headers http.Header
		ok      bool
	}{
		"none":                    {nil, true},
		"a credential":            {http.Header{"Authorization": {"Bearer abc"}}, true},
		"lower case":              {http.Header{"x-a": {"b c"}}, true},
		"an empty value":          {http.Header{"X-A": {""}}, true},
		"too many":                {many, false},
		"CRLF in a value":         {http.Header{"X-A": {"b\r\nX-Evil: 1"}}, false},
		"LF in a value":           {http.Header{"X-A": {"b\nc"}}, false},
		"NUL in a value":          {http.Header{"X-A": {"b\x00"}}, false},
		"a letter beyond ASCII":   {http.Header{"X-A": {"é"}}, false},
		"a space at the end":      {http.Header{"X-A": {"b "}}, false},
		"two values":              {http.Header{"X-A": {"b", "c"}}, false},
		"no value":                {http.Header{"X-A": {}}, false},
		"a long value":            {http.Header{"X-A": {strings.Repeat("a", 2049)}}, false},
		"CRLF in a name":          {http.Header{"X-A\r\nX-Evil": {"b"}}, false},
		"a colon in a name":       {http.Header{"X-A:": {"b"}}, false},
		"a space in a name":       {http.Header{"X A": {"b"}}, false},
		"an empty name":           {http.Header{"": {"b"}}, false},
		"a long name":             {http.Header{strings.Repeat("a", 129): {"b"}}, false},
		"Host":                    {http.Header{"Host": {"b"}}, false},
		"host, lower case":        {http.Header{"host": {"b"}}, false},
		"Content-Length":          {http.Header{"Content-Length": {"1"}}, false},
		"Transfer-Encoding":       {http.Header{"transfer-encoding": {"chunked"}}, false},
		"Connection":              {http.Header{"CONNECTION": {"close"}}, false},
		"a webhook header":        {http.Header{"webhook-anything": {"b"}}, false},
		"a proxy header":          {http.Header{"Proxy-Authorization": {"b"}}, false},
		"a CloudEvents attribute": {http.Header{"ce-id": {"b"}}, false},
		"Content-Type":            {http.Header{"Content-Type": {"text/html"}}, false},
		"Expect":                  {http.Header{"Expect": {"100-continue"}}, false},
		"leave to repeat":         {http.Header{"Idempotency-Key": {"b"}}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := ValidateHeaders(c.headers)
			if c.ok != (err == nil) || err != nil && !errors.Is(err, ErrInvalidHeader) {
				t.Errorf("ValidateHeaders = %v, want ok %v", err, c.ok)
			}
		})
	}
}
