package api_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
)

type eventBody struct {
	Position               int64
	ID, Type, Subject      string
	Data                   json.RawMessage
	DataBase64             []byte
	Source, SourceID       string
	DataSchema             string
	DataContentType        string
	Extensions             map[string]any
	Metadata               map[string]string
	OccurredAt, RecordedAt time.Time
}

type eventList struct {
	Items      []eventBody
	NextCursor string
}

func TestA2xxMeansThatTheEventIsCommittedWithItsBytes(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	const data = `{"b": 1.00,  "a":[1e2, "\u00e9\/é"], "big": 12345678901234567890}`
	e := s.do("POST", "/events", `{"type":"photo.edited","subject":"photo/7","occurredAt":"2026-01-02T03:04:05.678901Z","data": `+data+` }`).want(202).event()
	var stored []byte
	var kind, subject string
	var occurred time.Time
	err := s.db.QueryRowContext(t.Context(), `SELECT data, kind, subject, occurred_at FROM posthorn.outbox WHERE id = $1 AND position = $2`,
		e.ID, e.Position).Scan(&stored, &kind, &subject, &occurred)
	if err != nil {
		t.Fatal(err)
	}
	if string(stored) != data || kind != "event" || subject != "photo/7" || !occurred.Equal(time.Date(2026, 1, 2, 3, 4, 5, 678901000, time.UTC)) {
		t.Errorf("stored %s %s %s %s", stored, kind, subject, occurred)
	}
	var shown eventBody
	s.do("GET", "/events/"+e.ID, "").want(200).decode(&shown)
	if shown.ID != e.ID || shown.Type != "photo.edited" || shown.Position != e.Position {
		t.Errorf("shown %+v", shown)
	}
}

func TestTheSameIDIsTheSameEvent(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	body := `{"id":"order-7","type":"PAID","data":{"a":1}}`
	first := s.do("POST", "/events", body).want(202).event()
	for _, again := range []reply{
		s.do("POST", "/events", body),
		s.do("POST", "/events", `{"type":"PAID","data":{"a":1}}`, "Idempotency-Key", "order-7"),
		s.do("POST", "/events", `{"type":"PAID","data":{"a":1}}`, "Idempotency-Key", `"order-7"`),
	} {
		if e := again.want(202).event(); e.ID != first.ID || e.Position != first.Position || !e.Duplicate || first.Duplicate {
			t.Errorf("got %+v, first %+v", e, first)
		}
	}
	s.do("POST", "/events", `{"id":"order-7","type":"PAID","data":{"a":2}}`).want(409).names("id")
	s.do("POST", "/events", body, "Idempotency-Key", "other").want(422).names("Idempotency-Key")
	s.do("POST", "/events", `{"type":"PAID"}`, "Idempotency-Key", "a.b").want(422).names("Idempotency-Key")
	s.do("POST", "/events", `{"type":"PAID"}`, "Idempotency-Key", strings.Repeat("a", 200)).want(422).names("Idempotency-Key")
	if n := s.events(); n != 1 {
		t.Errorf("%d events, want 1", n)
	}
}

func TestConcurrentRequestsWithOneIDAreOneEvent(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	var wg sync.WaitGroup
	positions := make([]int64, 32)
	for i := range positions {
		wg.Go(func() {
			positions[i] = s.do("POST", "/events", `{"id":"one","type":"A"}`).event().Position
		})
	}
	wg.Wait()
	for _, p := range positions {
		if p != positions[0] || p == 0 {
			t.Fatalf("positions %v", positions)
		}
	}
	if n := s.events(); n != 1 {
		t.Errorf("%d events, want 1", n)
	}
}

func TestABatchIsAllOrNothing(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	var answer struct{ Events []acceptedEvent }
	s.do("POST", "/events", `[{"type":"A"},{"type":"B","id":"b"},{"type":"C"}]`).want(202).decode(&answer)
	if len(answer.Events) != 3 || answer.Events[1].ID != "b" || answer.Events[2].Position != answer.Events[0].Position+2 {
		t.Errorf("answer %+v", answer)
	}
	r := s.do("POST", "/events", `[{"type":"D"},{"type":"other","id":"b"}]`).want(409)
	r.names("[1].id")
	s.do("POST", "/events", `[{"type":"D"},{"type":"E","id":"e"},{"type":"F","id":"e"}]`).want(409).names("[2].id")
	if n := s.events(); n != 3 {
		t.Errorf("%d events, want 3", n)
	}
	big := "[" + strings.Repeat(`{"type":"A"},`, 999) + `{"type":"A"}]`
	s.do("POST", "/events", big).want(202)
	if n := s.events(); n != 1003 {
		t.Errorf("%d events, want 1003", n)
	}
}

func TestABatchWithAKeyIsAppendedOnce(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	var first, again struct{ Events []acceptedEvent }
	body := `[{"type":"A"},{"type":"B"}]`
	s.do("POST", "/events", body, "Idempotency-Key", "k").want(202).decode(&first)
	s.do("POST", "/events", body, "Idempotency-Key", "k").want(202).decode(&again)
	for i := range first.Events {
		if again.Events[i].ID != first.Events[i].ID || !again.Events[i].Duplicate {
			t.Errorf("again %+v, first %+v", again, first)
		}
	}
	for _, other := range []string{`[{"type":"A"}]`, `[{"type":"A"},{"type":"B"},{"type":"C"}]`, `[{"type":"A"},{"type":"B","data":1}]`} {
		s.do("POST", "/events", other, "Idempotency-Key", "k").want(409).names("Idempotency-Key")
	}
	if n := s.events(); n != 2 {
		t.Errorf("%d events, want 2", n)
	}
}

func TestConcurrentEventsShareCommits(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	// A lock on its table holds up a commit.
	tx, err := s.db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.ExecContext(t.Context(), `LOCK TABLE posthorn.outbox IN EXCLUSIVE MODE`); err != nil {
		t.Fatal(err)
	}
	const n = 50
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() { s.do("POST", "/events", `{"type":"A"}`).want(202) })
	}
	waitUntil(t, func() bool {
		var waiting int64
		err := s.db.QueryRowContext(t.Context(), `SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'posthorn.outbox'::regclass`).Scan(&waiting)
		return err == nil && waiting > 0
	})
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	commits := s.count(`SELECT count(DISTINCT xmin::text) FROM posthorn.outbox`)
	if commits > n/2 {
		t.Errorf("%d events took %d commits", n, commits)
	}
}

// waitUntil polls, for at most ten seconds.
func waitUntil(t *testing.T, done func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(10 * time.Second)
	for !done() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("it did not happen within 10 s")
		}
	}
}

func TestCloudEventsInTheirThreeModesAreOneEvent(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	const structured = `{"specversion":"1.0","id":"ce-1","source":"/photos","type":"photo.liked","subject":"photo/1",
		"time":"2026-01-02T03:04:05Z","datacontenttype":"application/json","dataschema":"https://example.com/s","tenant":"a","retries":3,"last":true,"none":null,"data":{"x": 1}}`
	first := s.do("POST", "/events", structured, "Content-Type", "application/cloudevents+json").want(202).event()
	binary := s.do("POST", "/events", `{"x": 1}`, "ce-specversion", "1.0", "ce-id", "ce-1", "ce-source", "/photos", "ce-type", "photo.liked",
		"ce-subject", "photo%2F1", "ce-time", "2026-01-02T03:04:05Z", "ce-tenant", "caf%C3%A9").want(202).event()
	var batch struct{ Events []acceptedEvent }
	s.do("POST", "/events", "["+structured+"]", "Content-Type", "application/cloudevents-batch+json; charset=utf-8").want(202).decode(&batch)
	if first.ID != "ce-1" || first.Duplicate || !binary.Duplicate || len(batch.Events) != 1 || !batch.Events[0].Duplicate {
		t.Errorf("structured %+v, binary %+v, batch %+v", first, binary, batch)
	}
	var e eventBody
	s.do("GET", "/events/ce-1", "").want(200).decode(&e)
	want := map[string]any{"tenant": "a", "retries": 3, "last": true}
	if e.Type != "photo.liked" || e.Subject != "photo/1" || string(e.Data) != `{"x":1}` || fmt.Sprint(e.Extensions) != fmt.Sprint(want) ||
		e.Source != "/photos" || e.DataSchema != "https://example.com/s" || e.DataContentType != "application/json" || e.SourceID != "" ||
		!e.OccurredAt.Equal(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)) {
		t.Errorf("event %+v", e)
	}
	if n := s.count(`SELECT count(*) FROM posthorn.outbox WHERE data = '{"x": 1}'::bytea`); n != 1 {
		t.Errorf("the data's bytes were not kept")
	}
	other := s.do("POST", "/events", `{"specversion":"1.0","id":"ce-2","source":"s","type":"A","data_base64":"eyJ4IjoxfQ=="}`,
		"Content-Type", "application/cloudevents+json").want(202).event()
	s.do("GET", "/events/"+other.ID, "").want(200).decode(&e)
	if string(e.Data) != `{"x":1}` {
		t.Errorf("data %s", e.Data)
	}
}

func TestBadCloudEventsAreRefused(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	post := func(body string) reply {
		return s.do("POST", "/events", body, "Content-Type", "application/cloudevents+json")
	}
	for field, body := range map[string]string{
		"id":          `{"specversion":"1.0","source":"s","type":"A"}`,
		"source":      `{"specversion":"1.0","id":"1","type":"A"}`,
		"type":        `{"specversion":"1.0","id":"1","source":"s"}`,
		"specversion": `{"specversion":"0.3","id":"1","source":"s","type":"A"}`,
		"time":        `{"specversion":"1.0","id":"1","source":"s","type":"A","time":"now"}`,
		"myExt":       `{"specversion":"1.0","id":"1","source":"s","type":"A","myExt":"x"}`,
		"ext":         `{"specversion":"1.0","id":"1","source":"s","type":"A","ext":{}}`,
		"subject":     `{"specversion":"1.0","id":"1","source":"s","type":"A","subject":1}`,
		"data_base64": `{"specversion":"1.0","id":"1","source":"s","type":"A","data_base64":"/w=="}`,
		"dataschema":  `{"specversion":"1.0","id":"1","source":"s","type":"A","dataschema":"x"}`,
		"ratio":       `{"specversion":"1.0","id":"1","source":"s","type":"A","ratio":1.5}`,
		"big":         `{"specversion":"1.0","id":"1","source":"s","type":"A","big":2147483648}`,
		"extra":       `{"specversion":"1.0","id":"1","source":"s","type":"A","extra":"` + strings.Repeat("x", 15<<10) + `"}`,

		"datacontenttype": `{"specversion":"1.0","id":"1","source":"s","type":"A","datacontenttype":"text"}`,
	} {
		post(body).want(422).names(field)
	}
	post(`{"specversion":"1.0","id":"1","source":"s","type":"A","data":1,"data_base64":"MQ=="}`).want(422)
	post(`{"specversion":"1.0","id":"1","id":"2","source":"s","type":"A"}`).want(400).names("id")
	post(`{"specversion":"1.0","id":"1","source":"s","type":"A","datacontenttype":"application/xml","data":{"a":1}}`).want(422).names("data")
	s.do("POST", "/events", `<a/>`, "Content-Type", "xml", "ce-specversion", "1.0", "ce-id", "1", "ce-source", "s", "ce-type", "A").want(415)
	s.do("POST", "/events", `{`, "ce-specversion", "1.0", "ce-id", "1", "ce-source", "s", "ce-type", "A").want(400)
	s.do("POST", "/events", `{}`, "ce-specversion", "1.0", "ce-source", "s", "ce-type", "A").want(422).names("ce-id")
	s.do("POST", "/events", `{}`, "ce-specversion", "1.0", "ce-id", "%zz", "ce-source", "s", "ce-type", "A").want(422).names("ce-id")
	s.do("POST", "/events", `[{"specversion":"1.0","id":"1","source":"s","type":"A"},{"specversion":"1.0"}]`,
		"Content-Type", "application/cloudevents-batch+json").want(422).names("[1].id")
	if n := s.events(); n != 0 {
		t.Errorf("%d events were stored", n)
	}
}

func TestATraceGoesWithItsEvents(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	e := s.do("POST", "/events", `{"type":"A"}`, "Traceparent", parent, "Tracestate", "a=1").want(202).event()
	var shown eventBody
	s.do("GET", "/events/"+e.ID, "").decode(&shown)
	if shown.Metadata["traceparent"] != parent || shown.Metadata["tracestate"] != "a=1" {
		t.Errorf("metadata %v", shown.Metadata)
	}
	e = s.do("POST", "/events", `{"type":"A"}`, "Traceparent", "rubbish").want(202).event()
	shown = eventBody{}
	s.do("GET", "/events/"+e.ID, "").decode(&shown)
	if len(shown.Metadata) != 0 {
		t.Errorf("metadata %v", shown.Metadata)
	}
}

func TestEventsArePagedAndFiltered(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	for i := range 10 {
		s.do("POST", "/events", fmt.Sprintf(`{"id":"e%d","type":"T%d","subject":"s/%d"}`, i, i%2, i%3)).want(202)
	}
	ids := func(query string) string {
		t.Helper()
		var all []string
		for cursor := ""; ; {
			var page eventList
			s.do("GET", "/events?"+query+cursor, "").want(200).decode(&page)
			for _, e := range page.Items {
				all = append(all, e.ID)
			}
			if page.NextCursor == "" {
				return strings.Join(all, " ")
			}
			cursor = "&cursor=" + page.NextCursor
		}
	}
	var all eventList
	s.do("GET", "/events?order=asc", "").decode(&all)
	fourth := all.Items[4]
	for query, want := range map[string]string{
		"":                          "e9 e8 e7 e6 e5 e4 e3 e2 e1 e0",
		"limit=3":                   "e9 e8 e7 e6 e5 e4 e3 e2 e1 e0",
		"limit=3&order=asc":         "e0 e1 e2 e3 e4 e5 e6 e7 e8 e9",
		"limit=2&type=T1":           "e9 e7 e5 e3 e1",
		"limit=2&subject=s/0":       "e9 e6 e3 e0",
		"type=T0&subject=s/0":       "e6 e0",
		"type=T9":                   "",
		"limit=1&order=asc&after=7": "e7 e8 e9",
		"limit=1&before=4":          "e2 e1 e0",
		"limit=2&order=asc&since=" + fourth.RecordedAt.Format(time.RFC3339Nano): "e4 e5 e6 e7 e8 e9",
		"limit=2&until=" + fourth.RecordedAt.Format(time.RFC3339Nano):           "e3 e2 e1 e0",
		"since=2000-01-01T00:00:00Z&until=2001-01-01T00:00:00Z":                 "",
		"since=2100-01-01T00:00:00Z":                                            "",
	} {
		if got := ids(query); got != want {
			t.Errorf("%s: got %q, want %q", query, got, want)
		}
	}
}

func TestReadingForwardMissesNoLateCommit(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	tx, err := s.db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.ExecContext(t.Context(), `SELECT posthorn.append_event('SLOW')`); err != nil {
		t.Fatal(err)
	}
	s.do("POST", "/events", `{"type":"QUICK"}`).want(202)
	var before, after eventList
	s.do("GET", "/events?order=asc", "").decode(&before)
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	s.do("GET", "/events?order=asc", "").decode(&after)
	if len(before.Items) != 0 || len(after.Items) != 2 || after.Items[0].Type != "SLOW" {
		t.Errorf("before %+v, after %+v", before, after)
	}
}
