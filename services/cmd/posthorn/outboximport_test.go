package main

import (
	"database/sql"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"posthorn/events"
	"posthorn/migrations/pgtest"
	"posthorn/outbox"
	"posthorn/services/internal/eventlog"
	"posthorn/services/internal/postgres"
)

// aLog is a database with a log in it.
func aLog(t *testing.T, batch ...events.Event) (db *sql.DB, flag string) {
	t.Helper()
	url := pgtest.URL(t)
	db, err := postgres.Open(url, "test", 2)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	for len(batch) > 0 {
		n := min(len(batch), 500)
		if _, err := eventlog.AppendGroup(t.Context(), db, batch[:n]); err != nil {
			t.Fatal(err)
		}
		batch = batch[n:]
	}
	return db, "--database-url=" + url
}

// contents returns the events of a log in its order, without the fields that an
// import assigns again.
func contents(t *testing.T, db *sql.DB) []events.Event {
	t.Helper()
	horizon, err := eventlog.Horizon(t.Context(), db)
	if err != nil {
		t.Fatal(err)
	}
	var all []events.Event
	for s := (eventlog.Slice{Through: horizon}); s.After < s.Through; {
		var records []eventlog.Record
		if records, s.After, err = eventlog.ReadSlice(t.Context(), db, s, 1000); err != nil {
			t.Fatal(err)
		}
		for _, r := range records {
			r.Position, r.RecordedAt, r.OccurredAt = 0, time.Time{}, r.OccurredAt.UTC()
			all = append(all, r.Event)
		}
	}
	return all
}

// odd are events that are hard to encode.
func odd() []events.Event {
	return []events.Event{
		{Type: "A", Data: []byte(`{"b": 1.0,  "a":"\u0001<é>", "A":2}`)},
		{Type: "A.b-c.D_4", Subject: "with\nbreaks\x1b[2J\u009b\u202e", Data: []byte("{\n\t\"a\":\r 1}")},
		{Type: "A", Data: []byte(`null`)},
		{Type: "A"},
		{Type: "A", Data: []byte(`"\ud83d\ude00 "`), Metadata: map[string]string{"traceparent": "x", "\u0085": "\u202e\n"}},
		{Type: "A", ID: "chosen/id", Account: "other", Data: []byte("\"\u2028\u007f\""), OccurredAt: time.Date(1, 1, 1, 0, 0, 0, 1000, time.UTC)},
		{Type: "A", ID: "chosen/id", Data: []byte(`12345678901234567890.10e0`), OccurredAt: time.Date(9999, 12, 31, 23, 59, 59, 999_999_000, time.UTC)},
		{
			Type: "A", ID: "ce 1.\u202e", Source: "/photos", Data: []byte(`{"a": 1}`), DataSchema: "https://example.com/s",
			Extensions: map[string]any{"tenant": "\u0085", "retries": int32(3), "last": true},
		},
		{Type: "A", ID: "chosen/id", Source: "/photos", Data: []byte("<a>\x1b</a>"), ContentType: "application/xml; charset=utf-8"},
		{Type: "A", ContentType: "application/octet-stream", Data: []byte("\xff\x00")},
		{Type: "A", ContentType: "text/plain"},
		{Type: "LARGE", Data: []byte(`"` + strings.Repeat("\u009b", events.MaxDataBytes/2-1) + `"`)},
	}
}

func TestAnImportRestoresAnExport(t *testing.T) {
	t.Parallel()
	batch := odd()
	for i := range 1200 {
		batch = append(batch, events.Event{Type: "MANY", Subject: fmt.Sprintf("s/%d", i), Data: fmt.Appendf(nil, `{"n":%d}`, i)})
	}
	from, source := aLog(t, batch...)
	// Records that have a meaning only in this log are left out.
	if _, err := from.ExecContext(t.Context(), `INSERT INTO posthorn.outbox (id, kind, type, data) VALUES ('t', 'test', 'T', '1')`); err != nil {
		t.Fatal(err)
	}
	to, target := aLog(t)
	file := filepath.Join(t.TempDir(), "log.jsonl")

	code, out, errOut := command(t, "outbox", "export", source, "-o", file)
	if code != 0 || out != "" || !strings.Contains(errOut, "1212 records") {
		t.Fatalf("export: %d %s %s", code, out, errOut)
	}
	if code, out, _ := command(t, "outbox", "import", target, file, "--dry-run"); code != 0 || !strings.HasPrefix(out, "1212 events to be appended") {
		t.Errorf("dry run: %d %s", code, out)
	}
	if got := contents(t, to); len(got) != 0 {
		t.Errorf("a dry run appended %d events", len(got))
	}
	if code, out, errOut := command(t, "outbox", "import", target, file); code != 0 || !strings.HasPrefix(out, "1212 events appended, 0 in") {
		t.Fatalf("import: %d %s %s", code, out, errOut)
	}
	want := contents(t, from)
	want = want[:len(want)-1]
	if diff := cmp.Diff(want, contents(t, to)); diff != "" {
		t.Errorf("the log after an import (-want +got):\n%s", diff)
	}
	// Again, into either log: all events are there already.
	for _, db := range []string{source, target} {
		if code, out, errOut := command(t, "outbox", "import", db, file); code != 0 || !strings.HasPrefix(out, "0 events appended, 1212 in") {
			t.Errorf("import again: %d %s %s", code, out, errOut)
		}
	}

	// A range, to standard output, with every kind.
	code, out, errOut = command(t, "outbox", "export", source, "--type", "T", "--kind", "event,test", "--type", "A.#", "--quiet")
	if lines := strings.Split(strings.TrimSpace(out), "\n"); code != 0 || len(lines) != 12 || errOut != "" {
		t.Errorf("export of a part: %d, %d lines, %s", code, len(lines), errOut)
	}
	part := filepath.Join(t.TempDir(), "part.jsonl")
	if err := os.WriteFile(part, []byte(out+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, out, _ := command(t, "outbox", "import", target, part); code != 0 || out != "0 events appended, 11 in the log already, 1 lines of other kinds left out\n" {
		t.Errorf("import of a part: %d %s", code, out)
	}
}

// lines returns the contents of a file of events.
func lines(n int, change func(i int, record map[string]any)) string {
	var b strings.Builder
	for i := range n {
		record := map[string]any{"id": fmt.Sprintf("e%d", i), "kind": "event", "type": "E", "data": i, "occurredAt": "2026-01-31T08:00:00Z"}
		if change != nil {
			change(i, record)
		}
		line, _ := json.Marshal(record) // of texts and numbers
		b.Write(append(line, '\n'))
	}
	return b.String()
}

func TestABadLineIsNamedAndNothingIsAppended(t *testing.T) {
	t.Parallel()
	db, flag := aLog(t, events.Event{Type: "E", ID: "taken", Data: []byte(`1`)})
	for name, line := range map[string]string{
		"JSON":       `{"id":"x","type":"E"`,
		"unknown":    `{"id":"x","type":"E","data":1,"occurredAt":"2026-01-31T08:00:00Z","tpye":"E"}`,
		"id":         `{"type":"E","data":1,"occurredAt":"2026-01-31T08:00:00Z"}`,
		"occurredAt": `{"id":"x","type":"E","data":1}`,
		"data":       `{"id":"x","type":"E","occurredAt":"2026-01-31T08:00:00Z"}`,
		"base64":     `{"id":"x","type":"E","data":1,"dataBase64":"!","occurredAt":"2026-01-31T08:00:00Z"}`,
		"bytes":      `{"id":"x","type":"E","data":1,"dataBase64":"/w==","occurredAt":"2026-01-31T08:00:00Z"}`,
		"type":       `{"id":"x","type":"E.*","data":1,"occurredAt":"2026-01-31T08:00:00Z"}`,
		"kind":       `{"id":"x","kind":"evnet","type":"E","data":1,"occurredAt":"2026-01-31T08:00:00Z"}`,
		"UTF-8":      `{"id":"x","type":"E","subject":"` + "\xff" + `","data":1,"occurredAt":"2026-01-31T08:00:00Z"}`,
		"two":        `{"id":"x","type":"E","data":1,"occurredAt":"2026-01-31T08:00:00Z"} {}`,
		"cut off":    `{"id":"x","type":"E","data":1,"occurredAt":"2026-01-31T08:0`,
	} {
		file := filepath.Join(t.TempDir(), "bad.jsonl")
		if err := os.WriteFile(file, []byte(lines(1100, nil)+line), 0o600); err != nil {
			t.Fatal(err)
		}
		code, out, errOut := command(t, "outbox", "import", flag, file)
		if code != 1 || out != "" || !strings.Contains(errOut, "line 1101: ") {
			t.Errorf("%s: %d %s %s", name, code, out, errOut)
		}
		if got := contents(t, db); len(got) != 1 {
			t.Fatalf("%s: %d events were appended", name, len(got)-1)
		}
	}
}

func TestAnIDWithOtherContentStopsAnImportAtItsBatch(t *testing.T) {
	t.Parallel()
	const at = "2026-01-31T08:00:00Z"
	occurred, err := time.Parse(time.RFC3339, at)
	if err != nil {
		t.Fatal(err)
	}
	db, flag := aLog(t, events.Event{Type: "E", ID: "taken", Data: []byte(`1`), OccurredAt: occurred})
	file := filepath.Join(t.TempDir(), "log.jsonl")
	for name, field := range map[string]map[string]any{
		"type": {"type": "F"}, "subject": {"subject": "s"}, "data": {"data": 2}, "time": {"occurredAt": "2026-01-31T08:00:01Z"},
		"metadata": {"metadata": map[string]string{"a": "b"}},
	} {
		text := lines(1, func(_ int, r map[string]any) {
			r["id"], r["data"] = "taken", 1
			maps.Copy(r, field)
		})
		if err := os.WriteFile(file, []byte("\n"+text), 0o600); err != nil {
			t.Fatal(err)
		}
		code, _, errOut := command(t, "outbox", "import", flag, file)
		if code != 1 || !strings.Contains(errOut, `line 2: event "taken"`) {
			t.Errorf("%s: %d %s", name, code, errOut)
		}
	}

	// The batches before the one with the bad line are in the log, the others
	// are not; once the line is fixed, running the import again continues.
	text := lines(1200, func(i int, r map[string]any) {
		if i == 700 {
			r["id"] = "taken"
		}
	})
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	code, _, errOut := command(t, "outbox", "import", flag, file)
	if code != 1 || !strings.Contains(errOut, "line 701: ") || !strings.Contains(errOut, "500 events appended") || len(contents(t, db)) != 501 {
		t.Errorf("%d %s, %d events", code, errOut, len(contents(t, db)))
	}
	if err := os.WriteFile(file, []byte(lines(1200, nil)), 0o600); err != nil {
		t.Fatal(err)
	}
	code, out, errOut := command(t, "outbox", "import", flag, file)
	if code != 0 || !strings.HasPrefix(out, "700 events appended, 500 in") || len(contents(t, db)) != 1201 {
		t.Errorf("%d %s %s, %d events", code, out, errOut, len(contents(t, db)))
	}

	// Twice in one file: the same event is appended once, another event with its id not at all.
	if err := os.WriteFile(file, []byte(strings.Repeat(lines(1, func(_ int, r map[string]any) { r["id"] = "twin" }), 2)), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, out, _ := command(t, "outbox", "import", flag, file); code != 0 || !strings.HasPrefix(out, "1 events appended, 1 in") {
		t.Errorf("twice the same: %d %s", code, out)
	}
	if err := os.WriteFile(file, []byte(lines(2, func(_ int, r map[string]any) { r["id"] = "other-twin" })), 0o600); err == nil {
		if code, _, errOut := command(t, "outbox", "import", flag, file); code != 1 || !strings.Contains(errOut, "line ") {
			t.Errorf("two under one id: %d %s", code, errOut)
		}
	}
}

func TestImportedEventsKeepWhatAProducerRetries(t *testing.T) {
	t.Parallel()
	// An event with a producer's id is appended once, even if an import
	// appended it first.
	db, flag := aLog(t)
	file := filepath.Join(t.TempDir(), "log.jsonl")
	if err := os.WriteFile(file, []byte(lines(1, nil)), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _, errOut := command(t, "outbox", "import", flag, file); code != 0 {
		t.Fatal(errOut)
	}
	at := time.Date(2026, 1, 31, 8, 0, 0, 0, time.UTC)
	got, err := eventlog.AppendGroup(t.Context(), db, []events.Event{{ID: "e0", Type: "E", Data: []byte(`0`), OccurredAt: at}})
	if err != nil || got[0].Outcome != outbox.Existing {
		t.Errorf("%+v, %v, want it to be there already", got, err)
	}
}
