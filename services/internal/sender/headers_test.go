package sender

import (
	"net/http"
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
