package api_test

import (
	"net/url"
	"testing"
)

func TestAnInternationalHostHasOneName(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	const want = "http://xn--bcher-kva.test/hook?Q=Ü"
	shown := func(path string) string {
		t.Helper()
		var sub subscriptionBody
		s.do("GET", path, "").want(200).decode(&sub)
		return sub.URL
	}
	created := s.subscribe(`{"url":"http://BÜCHER.test/hook?Q=Ü","eventTypes":["a"]}`)
	path := "/subscription/" + created.ID
	if created.URL != want || shown(path) != want {
		t.Errorf("created with %q, shown as %q, want %q", created.URL, shown(path), want)
	}
	for _, spelling := range []string{"http://b%C3%BCcher.TEST/hook?Q=Ü", "http://bücher。test/hook?Q=Ü", want} {
		var list struct{ Items []subscriptionBody }
		if s.do("GET", "/subscription?url="+url.QueryEscape(spelling), "").want(200).decode(&list); len(list.Items) != 1 {
			t.Errorf("%q finds %d subscriptions", spelling, len(list.Items))
		}
		s.do("PATCH", path, `{"url":"https://example.com/"}`).want(200)
		if s.do("PATCH", path, `{"url":"`+spelling+`"}`).want(200); shown(path) != want {
			t.Errorf("%q is shown as %q", spelling, shown(path))
		}
	}
	// As an older version may have stored it, without normalising its host.
	if _, err := s.db.ExecContext(t.Context(), `UPDATE posthorn.subscriptions SET url = $1`, "http://BÜCHER.test/hook?Q=Ü"); err != nil {
		t.Fatal(err)
	}
	if got := shown(path); got != want {
		t.Errorf("a stored name is shown as %q", got)
	}
	for _, bad := range []string{"http://xn--BCHER-2pa.test/", "http://p\u0430ypal.test/", "http://bü_cher.test/", "http://①.test/"} {
		s.do("POST", "/subscription", `{"url":"`+bad+`","eventTypes":["a"]}`).want(422)
		s.do("PATCH", path, `{"url":"`+bad+`"}`).want(422)
	}
}
