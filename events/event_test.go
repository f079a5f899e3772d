package events_test

import (
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"posthorn/events"
)

var update = flag.Bool("update", false, "rewrite the golden files") //nolint:gochecknoglobals // a flag of the test binary

func TestBodiesMatchTheGoldenFiles(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 1, 2, 3, 4, 5, 678901000, time.FixedZone("CET", 3600))
	for name, e := range map[string]events.Event{
		"like": {
			ID: "evt_019a0000-0000-7000-8000-000000000001", Type: "LIKED_PHOTO", Subject: "photo/123",
			Data: []byte(`{"photoId":"123", "by" : "ann"}`), OccurredAt: at,
		},
		"bare": {ID: "order-7", Type: "a.b-c.D_4", OccurredAt: at.Truncate(time.Second)},
		"cloudevent": {
			ID: "ce_0", Type: "a.b", Subject: "s", Data: []byte(`{"a": 1}`), OccurredAt: at, Source: "/s?x=%20", SourceID: "a.b \"é\"",
			DataSchema: "https://example.com/s", ContentType: "application/json", Extensions: map[string]any{"tenant": "<x>", "retries": int32(-3), "last": true},
		},
		"text":    {ID: "t", Type: "T", Data: []byte("<a>\"é\"\n</a>"), OccurredAt: at, ContentType: "application/xml; charset=UTF-8"},
		"empty":   {ID: "t", Type: "T", OccurredAt: at, ContentType: "text/plain"},
		"latin1":  {ID: "t", Type: "T", Data: []byte("plain"), OccurredAt: at, ContentType: "text/plain; charset=latin1"},
		"binary":  {ID: "t", Type: "T", Data: []byte("\x89PNG\x00\xff"), OccurredAt: at, ContentType: "image/png"},
		"escapes": {ID: `a"\<&>`, Type: "T", Subject: "é\n\u2028\"\\<>", Data: []byte(`"\u0000\ud83d\ude00 1e400"`), OccurredAt: at},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join("testdata", name+".json")
			got := append(e.AppendBody(nil), '\n')
			if *update {
				if err := os.WriteFile(path, got, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != string(want) {
				t.Errorf("body is\n%s want\n%s", got, want)
			}
			back, err := events.ParseBody(got)
			if err != nil {
				t.Fatal(err)
			}
			data := string(e.Data)
			if data == "" && e.JSON() {
				data = "null"
			}
			if !reflect.DeepEqual(back.Attributes(), e.Attributes()) {
				t.Errorf("attributes came back as %v", back.Attributes())
			}
			if back.ID != e.ID || back.Type != e.Type || back.Subject != e.Subject || string(back.Data) != data || !back.OccurredAt.Equal(e.OccurredAt) {
				t.Errorf("parsed back as %+v", back)
			}
		})
	}
}

func TestForeignBodiesAreRefused(t *testing.T) {
	t.Parallel()
	for _, body := range []string{"", "{}", "[]", `{"id":"a"}`, `{"id":"a","type":"a..b"}`, `{"id":"a.b","type":"T"}`, `{"id":1,"type":"T"}`} {
		if _, err := events.ParseBody([]byte(body)); !errors.Is(err, events.ErrInvalid) {
			t.Errorf("ParseBody(%s) = %v, want ErrInvalid", body, err)
		}
	}
}

func TestValidateNamesTheField(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("a", 2000)
	for name, test := range map[string]struct {
		event events.Event
		field string
	}{
		"no type":          {events.Event{}, "type"},
		"long type":        {events.Event{Type: long}, "type"},
		"pattern for type": {events.Event{Type: "a.*"}, "type"},
		"dot in id":        {events.Event{Type: "T", ID: "a.b"}, "id"},
		"space in id":      {events.Event{Type: "T", ID: "a b"}, "id"},
		"long id":          {events.Event{Type: "T", ID: long}, "id"},
		"account":          {events.Event{Type: "T", Account: "A"}, "account"},
		"long subject":     {events.Event{Type: "T", Subject: long}, "subject"},
		"NUL in subject":   {events.Event{Type: "T", Subject: "a\x00b"}, "subject"},
		"subject encoding": {events.Event{Type: "T", Subject: "\xff"}, "subject"},
		"data":             {events.Event{Type: "T", Data: []byte("{")}, "data"},
		"data encoding":    {events.Event{Type: "T", Data: []byte("\"\xff\"")}, "data"},
		"long data":        {events.Event{Type: "T", Data: make([]byte, events.MaxDataBytes+1)}, "data"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := test.event.Validate()
			if !errors.Is(err, events.ErrInvalid) || !strings.Contains(err.Error(), ": "+test.field+": ") {
				t.Errorf("Validate() = %v, want ErrInvalid that names %s", err, test.field)
			}
		})
	}
	good := events.Event{ID: "~!/-_", Type: "a-b.C_1", Account: "acme-1", Subject: "é", Data: []byte(" {} ")}
	if err := good.Validate(); err != nil {
		t.Errorf("Validate() = %v", err)
	}
}

func TestIdsAreVersion7AndSortByTime(t *testing.T) {
	t.Parallel()
	form := regexp.MustCompile(`^evt_[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	last := ""
	for i := range 1000 {
		id := events.NewID(now.Add(time.Duration(i) * time.Millisecond))
		if !form.MatchString(id) {
			t.Fatalf("id %q has another form", id)
		}
		if id <= last {
			t.Fatalf("id %q does not sort after %q", id, last)
		}
		if err := (events.Event{ID: id, Type: "T"}).Validate(); err != nil {
			t.Fatal(err)
		}
		last = id
	}
}

func FuzzBodyIsJSONWhateverTheEventSays(f *testing.F) {
	f.Add("evt_1", "T", "photo/1", `{"a":1}`)
	f.Add(`"`, "a.b", "\u2028\x01<\\", "null")
	f.Fuzz(func(t *testing.T, id, eventType, subject, data string) {
		e := events.Event{ID: id, Type: eventType, Subject: subject, Data: []byte(data), OccurredAt: time.Unix(1, 0)}
		if e.Validate() != nil || id == "" {
			return
		}
		body := e.AppendBody(nil)
		if !json.Valid(body) {
			t.Fatalf("%q is no JSON", body)
		}
		back, err := events.ParseBody(body)
		if err != nil {
			t.Fatal(err)
		}
		if back.ID != id || back.Type != eventType || back.Subject != subject {
			t.Fatalf("%q came back as %+v", body, back)
		}
	})
}

func BenchmarkAppendBody(b *testing.B) {
	e := events.Event{
		ID: "evt_019a0000-0000-7000-8000-000000000001", Type: "LIKED_PHOTO", Subject: "photo/123",
		Data: []byte(`{"photoId":"123","by":"ann"}`), OccurredAt: time.Unix(1, 0),
	}
	buf := make([]byte, 0, 512)
	b.ReportAllocs()
	for b.Loop() {
		buf = e.AppendBody(buf[:0])
	}
}

func TestAttributesRoundTrip(t *testing.T) {
	t.Parallel()
	for _, e := range []events.Event{
		{},
		{Source: "/s", SourceID: "a.b", DataSchema: "urn:x", ContentType: "text/plain"},
		{Extensions: map[string]any{"a": "é", "b": true, "c": int32(-7)}},
	} {
		text, err := json.Marshal(e.Attributes())
		if err != nil {
			t.Fatal(err)
		}
		var back events.Event
		if e.Attributes() != nil {
			if err := back.ParseAttributes(text); err != nil {
				t.Fatal(err)
			}
		}
		if !reflect.DeepEqual(back, e) {
			t.Errorf("%s came back as %+v, want %+v", text, back, e)
		}
	}
	for _, text := range []string{`[]`, `{`, `{"source":1}`, `{"source":""}`, `{"a":1.5}`, `{"a":4294967296}`, `{"a":{}}`, `{"A":1}`, `{"time":"x"}`, `{"dataschema":"x"}`} {
		var e events.Event
		if err := e.ParseAttributes([]byte(text)); !errors.Is(err, events.ErrInvalid) || e.Attributes() != nil {
			t.Errorf("ParseAttributes(%s) = %v, want ErrInvalid", text, err)
		}
	}
}

func TestTheGrammarOfAnIDDependsOnTheSource(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		event events.Event
		ok    bool
	}{
		{events.Event{ID: "a.b c"}, false},
		{events.Event{ID: "a.b c", Source: "/s"}, true},
		{events.Event{ID: "a.b c", Source: "/s", SourceID: "x"}, false},
		{events.Event{ID: "abc", Source: "/s", SourceID: "a.b c"}, true},
		{events.Event{ID: "abc", SourceID: "a.b c"}, false},
		{events.Event{Source: "/s", ID: strings.Repeat("x", 1025)}, false},
		{events.Event{Source: "/s", ID: "\x00"}, false},
		{events.Event{Source: "/s"}, true},
	} {
		c.event.Type = "T"
		if err := c.event.Validate(); (err == nil) != c.ok {
			t.Errorf("%+v: %v", c.event, err)
		}
	}
}

func TestOccurredAtFitsPostgresAndRFC3339(t *testing.T) {
	t.Parallel()
	for at, ok := range map[time.Time]bool{
		{}: true, // none
		time.Date(1, 1, 1, 0, 0, 0, 1000, time.UTC):                    true,
		time.Date(1, 1, 1, 0, 0, 0, 100, time.UTC):                     false, // none, to the microsecond
		time.Date(0, 12, 31, 23, 59, 59, 0, time.UTC):                  false,
		time.Date(9999, 12, 31, 23, 59, 59, 999_999_499, time.UTC):     true,
		time.Date(9999, 12, 31, 23, 59, 59, 999_999_500, time.UTC):     false, // Postgres rounds
		time.Date(9999, 12, 31, 23, 59, 59, 0, time.FixedZone("", -1)): false,
		time.Date(292277, 1, 1, 0, 0, 0, 0, time.UTC):                  false,
	} {
		if err := (events.Event{Type: "T", OccurredAt: at}).Validate(); (err == nil) != ok {
			t.Errorf("%v: %v", at, err)
		}
	}
}
