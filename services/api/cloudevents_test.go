package api_test

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
)

func cloudEvent(source, id string, further string) string {
	return fmt.Sprintf(`{"specversion":"1.0","source":%q,"id":%q,"type":"a.b"%s}`, source, id, further)
}

func TestCloudEventsAreIdentifiedBySourceAndID(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	post := func(body string) acceptedEvent {
		return s.do("POST", "/events", body, "Content-Type", "application/cloudevents+json").want(202).event()
	}
	s.do("POST", "/events", `{"id":"plain","type":"A"}`).want(202)
	first := map[string]acceptedEvent{}
	for _, source := range []string{"/one", "/two", "/three"} {
		for _, id := range []string{"1", "plain", "a.b c", "é", strings.Repeat("x", 1024)} {
			e := post(cloudEvent(source, id, ""))
			if e.Duplicate {
				t.Errorf("%s %.10s is mistaken for another event", source, id)
			}
			if own := source == "/one" && id == "1"; own != (e.ID == id) {
				t.Errorf("%s %.10s has the id %s", source, id, e.ID)
			}
			first[source+id] = e
		}
	}
	for _, source := range []string{"/three", "/one", "/two"} {
		for _, id := range []string{"1", "plain", "a.b c", "é", strings.Repeat("x", 1024)} {
			again := post(cloudEvent(source, id, `,"traceparent":"another"`))
			if want := first[source+id]; !again.Duplicate || again.ID != want.ID || again.Position != want.Position {
				t.Errorf("%s %.10s again is %+v, first %+v", source, id, again, want)
			}
			s.do("POST", "/events", cloudEvent(source, id, `,"data":1`), "Content-Type", "application/cloudevents+json").want(409).names("id")
			var shown eventBody
			s.do("GET", "/events/"+again.ID, "").want(200).decode(&shown)
			if own := shown.ID == id; shown.Source != source || own != (shown.SourceID == "") || !own && shown.SourceID != id {
				t.Errorf("%s %.10s is shown as %+v", source, id, shown)
			}
		}
	}
	// Also in one batch.
	var batch struct{ Events []acceptedEvent }
	s.do("POST", "/events", "["+strings.Join([]string{
		cloudEvent("/four", "7", ""), cloudEvent("/five", "7", ""), cloudEvent("/four", "7", ""), cloudEvent("/one", "1", ""),
	}, ",")+"]", "Content-Type", "application/cloudevents-batch+json").want(202).decode(&batch)
	got := batch.Events
	if got[0].ID != "7" || got[0].Duplicate || got[1].ID == "7" || got[1].Duplicate || !got[2].Duplicate || got[2].ID != "7" ||
		!got[3].Duplicate || got[3].ID != "1" {
		t.Errorf("batch %+v", got)
	}
	if n := s.events(); n != 18 {
		t.Errorf("%d events, want 18", n)
	}
}

func TestDataOfEveryTypeIsCarried(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	n := 0
	for _, c := range []struct{ media, data, wantData, wantBase64 string }{
		{"", `{"a": 1}`, `{"a":1}`, ""},
		{"application/json", `"text"`, `"text"`, ""},
		{"application/problem+json; charset=utf-8", `[1]`, `[1]`, ""},
		{"text/plain", "a\nb \"c\"", `"a\nb \"c\""`, ""},
		{"text/plain; charset=latin1", "caf\xe9", "", "caf\xe9"},
		{"application/xml", "<a>é</a>", `"\u003ca\u003eé\u003c/a\u003e"`, ""},
		{"image/svg+xml", "<svg/>", `"\u003csvg/\u003e"`, ""},
		{"application/octet-stream", "text", "", "text"},
		{"image/png", "\x89PNG\x00\xff", "", "\x89PNG\x00\xff"},
		{"application/protobuf", "", "", ""},
		{"text/csv", "", `""`, ""},
	} {
		n++
		headers := []string{"Content-Type", c.media, "ce-specversion", "1.0", "ce-source", "/s", "ce-type", "a"}
		binary := s.do("POST", "/events", c.data, append(headers, "ce-id", fmt.Sprint("binary-", n))...).want(202).event()
		media := ""
		if c.media != "" {
			media = fmt.Sprintf(`,"datacontenttype":%q`, c.media)
		}
		structured := s.do("POST", "/events", cloudEvent("/s", fmt.Sprint("structured-", n),
			media+fmt.Sprintf(`,"data_base64":%q`, base64.StdEncoding.EncodeToString([]byte(c.data)))),
			"Content-Type", "application/cloudevents+json").want(202).event()
		for _, id := range []string{binary.ID, structured.ID} {
			var e eventBody
			s.do("GET", "/events/"+id, "").want(200).decode(&e)
			if e.DataContentType != c.media || string(e.Data) != c.wantData && c.wantData != "" || string(e.DataBase64) != c.wantBase64 {
				t.Errorf("%s: %s %q %q", c.media, e.DataContentType, e.Data, e.DataBase64)
			}
			var stored []byte
			if err := s.db.QueryRowContext(t.Context(), `SELECT data FROM posthorn.outbox WHERE id = $1`, id).Scan(&stored); err != nil || string(stored) != c.data {
				t.Errorf("%s: stored %q, %v, want %q", c.media, stored, err, c.data)
			}
		}
	}
	e := s.do("POST", "/events", cloudEvent("/s", "text", `,"data":"a\nb","datacontenttype":"text/plain"`),
		"Content-Type", "application/cloudevents+json").want(202).event()
	if s.count(`SELECT count(*) FROM posthorn.outbox WHERE id = 'text' AND data = convert_to(E'a\nb', 'UTF8')`) != 1 {
		t.Errorf("the text of %s is not the data", e.ID)
	}
	s.do("POST", "/events", `{`, "Content-Type", "application/json", "ce-specversion", "1.0", "ce-id", "1", "ce-source", "s", "ce-type", "A").want(400)
	s.do("POST", "/events", `<a/>`, "Content-Type", "application/xml").want(415).names("Content-Type")
}

func TestHeadersOfACloudEventAreDecoded(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	e := s.do("POST", "/events", `{}`, "ce-specversion", "1.0", "ce-id", "Euro%20%E2%82%AC%20%F0%9F%98%80", "ce-source", "/s", "ce-type", "a",
		"ce-tenant", `"say \"caf%C3%A9\""`, "ce-subject", "a%2Fb").want(202).event()
	var shown eventBody
	s.do("GET", "/events/"+e.ID, "").want(200).decode(&shown)
	if shown.SourceID != "Euro € 😀" || shown.Extensions["tenant"] != `say "café"` || shown.Subject != "a/b" {
		t.Errorf("shown %+v", shown)
	}
	s.do("POST", "/events", `{}`, "ce-specversion", "1.0", "ce-id", "1", "ce-source", "/s", "ce-type", "a", "ce-tenant", `"open`).
		want(422).names("ce-tenant")
	s.do("POST", "/events", `{}`, "ce-specversion", "1.0", "ce-id", "1", "ce-source", "/s", "ce-type", "com.example.type with blanks").
		want(422).names("ce-type")
}
