package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"posthorn/events"
	"posthorn/migrations/pgtest"
	"posthorn/outbox"
	"posthorn/services/api"
	"posthorn/services/internal/eventlog"
	"posthorn/services/internal/operate"
	"posthorn/services/internal/postgres"
	"posthorn/services/internal/signing"
	"posthorn/services/photos"
)

// sample is an event as a producer might send it, well formed or not. metadata
// and extensions are JSON; empty fields are left out.
type sample struct {
	id, account, kind, subject, data, media, source, schema, at, metadata, extensions string
}

// verdict is the result that every way into the log must give for an event. An
// event that only the table accepts is harmless: only the owner of the tables
// can insert there.
type verdict struct {
	name  string
	event sample
	good  bool
	table bool // the table accepts it
}

func verdicts() []verdict {
	deep := func(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
	bad := func(name string, e sample) verdict { return verdict{name: name, event: e} }
	good := func(name string, e sample) verdict { return verdict{name: name, event: e, good: true, table: true} }
	lax := func(name string, e sample) verdict { return verdict{name: name, event: e, table: true} }
	many := make([]string, 300)
	for i := range many {
		many[i] = fmt.Sprintf(`{"n":%d,"at":"12:00"}`, i)
	}
	list := []verdict{
		good("nothing but a type", sample{kind: "a"}),
		good("an id", sample{id: "~!/-_", kind: "a-b.C_1", subject: "é", data: ` {"a" : 1} `}),
		good("16 words", sample{kind: strings.Repeat("a.", 15) + "a"}),
		bad("17 words", sample{kind: strings.Repeat("a.", 16) + "a"}),
		bad("no type", sample{}),
		bad("a pattern", sample{kind: "a.#"}),
		bad("a long type", sample{kind: strings.Repeat("a", 129)}),
		bad("a dot in the id", sample{kind: "a", id: "a.b"}),
		bad("a blank in the id", sample{kind: "a", id: "a b"}),
		bad("a long id", sample{kind: "a", id: strings.Repeat("i", 129)}),
		bad("a letter with an accent in the id", sample{kind: "a", id: "é"}),
		bad("an account in capitals", sample{kind: "a", account: "Acme"}),
		bad("a long account", sample{kind: "a", account: strings.Repeat("a", 65)}),
		good("an account", sample{kind: "a", account: "acme_1-2"}),
		good("a subject at the limit", sample{kind: "a", subject: strings.Repeat("s", 512)}),
		bad("a long subject", sample{kind: "a", subject: strings.Repeat("s", 513)}),
		bad("a long subject in characters of two bytes", sample{kind: "a", subject: strings.Repeat("é", 257)}),
		bad("NUL in the subject", sample{kind: "a", subject: "a\x00"}),
		bad("a subject that is not UTF-8", sample{kind: "a", subject: "\xff"}),

		bad("the end of time", sample{kind: "a", at: "infinity"}),
		bad("its beginning", sample{kind: "a", at: "-infinity"}),
		bad("before Christ", sample{kind: "a", at: "0044-03-15T12:00:00Z BC"}),
		bad("the year 10000", sample{kind: "a", at: "10000-01-01T00:00:00Z"}),
		bad("the year 10000 by its offset", sample{kind: "a", at: "9999-12-31T23:59:59-01:00"}),
		bad("the first instant, which stands for none", sample{kind: "a", at: "0001-01-01T00:00:00Z"}),
		good("the second microsecond", sample{kind: "a", at: "0001-01-01T00:00:00.000001Z"}),
		good("the last microsecond", sample{kind: "a", at: "9999-12-31T23:59:59.999999Z"}),

		bad("half an object", sample{kind: "a", data: `{`}),
		bad("two values", sample{kind: "a", data: `{} {}`}),
		bad("bytes", sample{kind: "a", data: "\xff\x00"}),
		bad("text that is not UTF-8", sample{kind: "a", data: "\"\xff\""}),
		bad("a byte order mark", sample{kind: "a", data: "\ufeff1"}),
		good("63 levels", sample{kind: "a", data: deep(63)}),
		bad("64 levels", sample{kind: "a", data: deep(64)}),
		bad("5000 levels", sample{kind: "a", data: deep(5000)}),
		good("63 levels with a value in them", sample{kind: "a", data: strings.Repeat("[", 63) + `"[[{{"` + strings.Repeat("]", 63)}),
		good("many brackets", sample{kind: "a", data: "[" + strings.Join(many, ",") + "]"}),
		good("brackets in text", sample{kind: "a", data: `"` + strings.Repeat("[{", 500) + `"`}),
		good("names given twice in two objects", sample{kind: "a", data: `[{"a:b":":"},{"a:b":"\":"}]`}),
		lax("a name given twice", sample{kind: "a", data: `{"a":1,"b":{},"a":2}`}),
		lax("a name given twice, written otherwise", sample{kind: "a", data: `[[{"a":1,"\u0061":2}]]`}),
		lax("a NUL character", sample{kind: "a", data: `"\u0000"`}),
		lax("half of a surrogate pair", sample{kind: "a", data: `["\ud800"]`}),
		good("a surrogate pair", sample{kind: "a", data: `"\ud83d\ude00"`}),
		lax("a number beyond a double", sample{kind: "a", data: `[1e400]`}),
		lax("a long number beyond a double", sample{kind: "a", data: `-1` + strings.Repeat("0", 309)}),
		lax("a number too small to keep", sample{kind: "a", data: `1e-20000`}),
		good("the greatest double", sample{kind: "a", data: `[1.7976931348623157e308,-1.7976931348623157E+308,1e-400]`}),
		lax("the first beyond it", sample{kind: "a", data: `1.7976931348623159e308`}),

		good("metadata", sample{kind: "a", metadata: `{"traceparent":"x","":""}`}),
		bad("metadata that is a list", sample{kind: "a", metadata: `[]`}),
		bad("metadata with a number", sample{kind: "a", metadata: `{"n":1}`}),
		bad("metadata with an object", sample{kind: "a", metadata: `{"n":{}}`}),
		good("metadata at the limit", sample{kind: "a", metadata: `{"n":"\n` + strings.Repeat("x", 8192-11) + `"}`}),
		bad("metadata beyond it", sample{kind: "a", metadata: `{"n":"\n` + strings.Repeat("x", 8192-10) + `"}`}),
	}
	n := 0
	from := func(e sample) sample {
		if n++; e.id == "" {
			e.id = fmt.Sprint(n)
		}
		if e.source == "" {
			e.source = "/s"
		}
		e.kind = "a"
		return e
	}
	return append(list,
		good("a source", from(sample{source: "urn:uuid:6e8bc430-9c3a-11d9-9669-0800200c9a66", schema: "https://example.com/s?x=%20#y"})),
		good("any text as the id at a source", from(sample{id: "a.b é\n" + strings.Repeat("x", 1000)})),
		bad("a long id at a source", from(sample{id: strings.Repeat("x", 1025)})),
		bad("a source with a blank", from(sample{source: "my service"})),
		bad("a source with an accent", from(sample{source: "/é"})),
		bad("a source with half an escape", from(sample{source: "/%2"})),
		bad("a long source", from(sample{source: strings.Repeat("s", 1025)})),
		bad("a schema without a scheme", from(sample{schema: "/schema"})),
		good("text", from(sample{media: "text/plain; charset=utf-8", data: "hello"})),
		good("markup", from(sample{media: "application/xml", data: "<a>{[</a>"})),
		good("an image", from(sample{media: "image/png", data: "\x89PNG\x00\xff"})),
		good("JSON of another name", from(sample{media: "Application/Problem+JSON ;a=b", data: `{"a":1}`})),
		bad("JSON of another name that is none", from(sample{media: "Application/Problem+JSON ;a=b", data: `{`})),
		bad("no media type", from(sample{media: "text", data: "x"})),
		bad("a media type of two lines", from(sample{media: "text/plain;\n", data: "x"})),
		bad("a media type that ends with a blank", from(sample{media: "text/plain ", data: "x"})),
		good("extensions", from(sample{extensions: `{"tenant":"a","retries":-2147483648,"last":false,"empty":""}`})),
		bad("an extension in capitals", from(sample{extensions: `{"myExt":"a"}`})),
		bad("an extension without a name", from(sample{extensions: `{"":"a"}`})),
		bad("an extension of a long name", from(sample{extensions: `{"` + strings.Repeat("n", 65) + `":"a"}`})),
		bad("an extension that is an object", from(sample{extensions: `{"ext":{}}`})),
		bad("an extension that is a fraction", from(sample{extensions: `{"ext":1.5}`})),
		bad("an extension beyond 32 bits", from(sample{extensions: `{"ext":2147483648}`})),
		good("extensions at the limit", from(sample{extensions: `{"ext":"` + strings.Repeat("x", 15360-27) + `"}`})),
		bad("extensions beyond it", from(sample{extensions: `{"ext":"` + strings.Repeat("x", 15360-26) + `"}`})),
	)
}

// An entryPoint appends an event, or returns the reason for refusing it; errInexpressible if
// its interface cannot express such an event.
type entryPoint func(t *testing.T, e sample) error

var errInexpressible = errors.New("cannot be expressed")

func TestEveryWayIntoTheLogHasTheSameRules(t *testing.T) {
	t.Parallel()
	for name, enter := range map[string]entryPoint{
		"HTTP": overHTTP(t), "Go": inGo(t), "append_event": inSQL(t), "append_events": inSQLByBatch(t),
		"import": byImport(t), "the table": intoTheTable(t),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, v := range verdicts() {
				want := v.good || name == "the table" && v.table
				if err := enter(t, v.event); !errors.Is(err, errInexpressible) && (err == nil) != want {
					t.Errorf("%s: %v, want it accepted: %v", v.name, err, want)
				}
			}
		})
	}
}

// orNil leaves an argument to its default.
func orNil(text string) any {
	if text == "" {
		return nil
	}
	return text
}

func (e sample) attributes() string {
	all := map[string]json.RawMessage{}
	if e.extensions != "" {
		_ = json.Unmarshal([]byte(e.extensions), &all) // written above
	}
	for name, value := range map[string]string{"source": e.source, "dataschema": e.schema, "datacontenttype": e.media} {
		if value != "" {
			all[name], _ = json.Marshal(value) // text
		}
	}
	text, _ := json.Marshal(all) // of JSON
	return string(text)
}

// event is the event as a Go value; false if Go cannot express it.
func (e sample) event() (events.Event, bool) {
	out := events.Event{
		ID: e.id, Account: e.account, Type: e.kind, Subject: e.subject, Data: []byte(e.data),
		ContentType: e.media, Source: e.source, DataSchema: e.schema,
	}
	if e.metadata != "" && json.Unmarshal([]byte(e.metadata), &out.Metadata) != nil {
		return out, false
	}
	if e.at != "" {
		var err error
		if out.OccurredAt, err = events.ParseTime(e.at); err != nil || out.OccurredAt.IsZero() {
			return out, false
		}
	}
	if e.extensions != "" {
		decoder := json.NewDecoder(strings.NewReader(e.extensions))
		decoder.UseNumber()
		_ = decoder.Decode(&out.Extensions) // written above
		for name, value := range out.Extensions {
			if number, ok := value.(json.Number); ok {
				n, err := number.Int64()
				if err != nil || int64(int32(n)) != n {
					return out, false
				}
				out.Extensions[name] = int32(n)
			}
		}
	}
	return out, true
}

func inGo(t *testing.T) entryPoint {
	t.Helper()
	db := pgtest.New(t)
	return func(t *testing.T, e sample) error {
		t.Helper()
		event, ok := e.event()
		if !ok {
			return errInexpressible
		}
		_, err := outbox.Append(t.Context(), db, event)
		if valid := event.Validate(); (valid == nil) != (err == nil) {
			t.Errorf("%.200v: Validate: %v, Append: %v", e, valid, err)
		}
		return err
	}
}

// sqlArguments are the arguments that both functions take, in their order.
func (e sample) sqlArguments() (data, raw any) {
	if e.media == "" && utf8.ValidString(e.data) && e.data != "" {
		return e.data, nil
	}
	if e.data == "" {
		return "null", nil
	}
	return nil, []byte(e.data)
}

func inSQL(t *testing.T) entryPoint {
	t.Helper()
	db := pgtest.New(t)
	return func(t *testing.T, e sample) error {
		t.Helper()
		data, raw := e.sqlArguments()
		_, err := db.ExecContext(t.Context(), `
			SELECT posthorn.append_event($1, $2, $3::text::json, $4, coalesce($5::text, 'default'), $6::text::timestamptz,
				coalesce($7::text, '{}')::jsonb, $8::text::jsonb, $9::bytea)`,
			e.kind, e.subject, data, orNil(e.id), orNil(e.account), orNil(e.at), orNil(e.metadata), e.attributes(), raw)
		return err
	}
}

func inSQLByBatch(t *testing.T) entryPoint {
	t.Helper()
	db := pgtest.New(t)
	return func(t *testing.T, e sample) error {
		t.Helper()
		data, raw := e.sqlArguments()
		var outcome string
		err := db.QueryRowContext(t.Context(), `
			SELECT outcome FROM posthorn.append_events(ARRAY[$1::text], ARRAY[$1::text IS NOT NULL], ARRAY[coalesce($2::text, 'default')], ARRAY[$3::text],
				ARRAY[$4::text], ARRAY[$5::text], ARRAY[coalesce($6::text, '{}')], ARRAY[$7::text::timestamptz], ARRAY[$8::text], ARRAY[$9::bytea])`,
			orNil(e.id), orNil(e.account), e.kind, e.subject, data, orNil(e.metadata), orNil(e.at), e.attributes(), raw).Scan(&outcome)
		if err == nil && outcome != "appended" {
			t.Errorf("%.200v: %s", e, outcome)
		}
		return err
	}
}

func intoTheTable(t *testing.T) entryPoint {
	t.Helper()
	db := pgtest.New(t)
	return func(t *testing.T, e sample) error {
		t.Helper()
		if e.source != "" && (len(e.id) > 128 || strings.ContainsAny(e.id, ". é")) {
			return errInexpressible // the id of a record can be a webhook-id
		}
		data := e.data
		if data == "" {
			data = "null"
		}
		_, err := db.ExecContext(t.Context(), `
			INSERT INTO posthorn.outbox (id, account, type, subject, data, metadata, attributes, occurred_at)
			VALUES (coalesce($1::text, 'x'), coalesce($2::text, 'default'), $3, $4, $5, coalesce($6::text, '{}')::jsonb, $7::text::jsonb,
				coalesce($8::text::timestamptz, now()))`,
			orNil(e.id), orNil(e.account), e.kind, e.subject, []byte(data), orNil(e.metadata), e.attributes(), orNil(e.at))
		return err
	}
}

func byImport(t *testing.T) entryPoint {
	t.Helper()
	db := pgtest.New(t)
	n := 0
	return func(t *testing.T, e sample) error {
		t.Helper()
		n++
		line := map[string]any{"id": e.id, "type": e.kind, "subject": e.subject, "occurredAt": e.at}
		if e.id == "" {
			line["id"] = fmt.Sprintf("line-%d", n)
		}
		if e.at == "" {
			line["occurredAt"] = "2026-01-31T08:00:00Z"
		}
		for name, value := range map[string]string{"account": e.account, "source": e.source, "dataSchema": e.schema, "dataContentType": e.media} {
			if value != "" {
				line[name] = value
			}
		}
		for name, value := range map[string]string{"metadata": e.metadata, "extensions": e.extensions} {
			if value != "" {
				line[name] = json.RawMessage(value)
			}
		}
		line["data"] = json.RawMessage("null")
		if e.data != "" {
			line["dataBase64"] = base64.StdEncoding.EncodeToString([]byte(e.data))
		}
		text, err := json.Marshal(line)
		if err != nil {
			t.Fatal(err)
		}
		if !utf8.ValidString(e.subject) {
			text = bytes.ReplaceAll(text, []byte(`\ufffd`), []byte("\xff"))
		}
		event, err := parseLine(text)
		if err == nil {
			_, err = eventlog.Import(t.Context(), db, []events.Event{*event})
		}
		return err
	}
}

func overHTTP(t *testing.T) entryPoint {
	t.Helper()
	url := anAPI(t, pgtest.URL(t))
	return func(t *testing.T, e sample) error {
		t.Helper()
		if e.account != "" || e.metadata != "" || e.media != "" && e.source == "" {
			return errInexpressible
		}
		members := map[string]string{"type": e.kind, "subject": e.subject, "id": e.id, "source": e.source, "occurredAt": e.at}
		content := "application/json"
		if e.source != "" {
			content = "application/cloudevents+json"
			delete(members, "occurredAt")
			members["specversion"], members["dataschema"], members["datacontenttype"], members["time"] = "1.0", e.schema, e.media, e.at
		}
		var body []string
		for name, value := range members {
			if value != "" {
				text, _ := json.Marshal(value) // text
				body = append(body, fmt.Sprintf("%q:%s", name, bytes.ReplaceAll(text, []byte(`\ufffd`), []byte("\xff"))))
			}
		}
		switch {
		case e.media != "":
			body = append(body, fmt.Sprintf(`"data_base64":%q`, base64.StdEncoding.EncodeToString([]byte(e.data))))
		case e.data != "":
			body = append(body, `"data":`+e.data)
		}
		if e.extensions != "" {
			body = append(body, strings.Trim(e.extensions, "{}"))
			if strings.Contains(e.extensions, "{}") {
				body[len(body)-1] += "{}"
			}
		}
		return post(t, url+"/events", content, "{"+strings.Join(body, ",")+"}")
	}
}

func anAPI(t *testing.T, database string) (url string) {
	t.Helper()
	db, err := postgres.Open(database, "test", 4)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	keys, err := signing.ParseKeyring(signing.GenerateKey())
	if err != nil {
		t.Fatal(err)
	}
	a, err := api.New(api.Config{Operations: operate.New(db, keys), Products: []api.Product{photos.New(db)}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	server := httptest.NewServer(a)
	t.Cleanup(func() {
		server.Close()
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return server.URL
}

// post returns the reason if the event is not accepted.
func post(t *testing.T, url, content, body string, headers ...string) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", content)
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode >= http.StatusInternalServerError {
		t.Errorf("%.300s: %d", body, res.StatusCode)
	}
	if res.StatusCode != http.StatusAccepted {
		var problem api.Problem
		_ = json.NewDecoder(res.Body).Decode(&problem) // the status says enough
		return fmt.Errorf("%d: %s", res.StatusCode, problem.Detail)
	}
	return nil
}
