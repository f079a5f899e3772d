package e2e_test

import (
	"net/http"
	"strings"
	"testing"

	"posthorn/events"
)

// postCloudEvent posts a body with headers and returns the id of the event.
func (s *system) postCloudEvent(body string, headers ...string) string {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), http.MethodPost, s.url+"/events", strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusAccepted {
		s.t.Fatalf("%s: %d", body, res.StatusCode)
	}
	return strings.TrimPrefix(res.Header.Get("Location"), "/events/")
}

func TestSubscribersGetEveryAttributeOfACloudEvent(t *testing.T) {
	t.Parallel()
	s := startSystem(t)
	sub := newSubscriber(t, nil)
	s.subscribe(sub.URL, nil, "#")
	structured := []string{"Content-Type", "application/cloudevents+json"}
	want := map[string]string{
		s.post("plain", 1)[0]: `"subject":"s/0","data":{"n":0}}`,
		s.postCloudEvent(`{"specversion":"1.0","id":"1","source":"/one","type":"a","subject":"s","time":"2026-01-02T03:04:05Z",
			"dataschema":"https://example.com/s","datacontenttype":"application/json","tenant":"x","retries":3,"last":true,"data":{"a": 1}}`, structured...): `"timestamp":"2026-01-02T03:04:05Z","subject":"s","source":"/one","dataSchema":"https://example.com/s",` +
			`"dataContentType":"application/json","extensions":{"last":true,"retries":3,"tenant":"x"},"data":{"a": 1}}`,
		s.postCloudEvent(`{"specversion":"1.0","id":"1","source":"/two","type":"a"}`, structured...):                                           `"source":"/two","sourceId":"1","data":null}`,
		s.postCloudEvent(`{"specversion":"1.0","id":"a.b c","source":"/two","type":"a","data":"x"}`, structured...):                            `"source":"/two","sourceId":"a.b c","data":"x"}`,
		s.postCloudEvent(`<a>"é"</a>`, "Content-Type", "text/xml", "ce-specversion", "1.0", "ce-id", "x", "ce-source", "/two", "ce-type", "a"): `"source":"/two","dataContentType":"text/xml","data":"<a>\"é\"</a>"}`,
		s.postCloudEvent("\xff\x00", "Content-Type", "image/png", "ce-specversion", "1.0", "ce-id", "i", "ce-source", "/two", "ce-type", "a"):  `"source":"/two","dataContentType":"image/png","dataBase64":"/wA="}`,
	}
	if len(want) != 6 {
		t.Fatalf("the events have %d ids", len(want))
	}
	eventually(t, patience, "all have arrived", func() bool { return len(sub.got()) >= len(want) })
	for _, r := range sub.got() {
		id := r.header.Get("Webhook-Id")
		if !strings.HasSuffix(string(r.body), want[id]) || want[id] == "" {
			t.Errorf("%s got %s, want it to end with %s", id, r.body, want[id])
		}
		e, err := events.ParseBody(r.body)
		if err != nil || e.ID != id {
			t.Errorf("parsed %+v, %v", e, err)
		}
		if r.header.Get("Content-Type") != "application/json" {
			t.Errorf("content type %s", r.header.Get("Content-Type"))
		}
	}
}
