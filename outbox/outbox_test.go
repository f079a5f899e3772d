package outbox

import (
	"errors"
	"strings"
	"testing"
	"time"

	"posthorn/events"
)

func TestABatchIsEncodedAsPostgresArrays(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 1, 2, 3, 4, 5, 678_000, time.FixedZone("", 3600))
	args, results, err := encode([]events.Event{
		{Type: "A", Subject: `a"b\c,{}`, Data: []byte(`{"q":"\"\\"}`)},
		{Type: "B.c", ID: "e-2", Account: "acme", OccurredAt: at, Metadata: map[string]string{"traceparent": "x"}},
		{Type: "D", ID: "e-3", Source: "/s", ContentType: "image/png", Data: []byte{0x89, 0xff}},
	})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []any{
		`{NULL,"e-2","e-3"}`,
		`{f,t,t}`,
		`{"default","acme","default"}`,
		`{"A","B.c","D"}`,
		`{"a\"b\\c,{}","",""}`,
		`{"{\"q\":\"\\\"\\\\\"}","null",NULL}`,
		`{"{}","{\"traceparent\":\"x\"}","{}"}`,
		`{NULL,"2026-01-02T02:04:05.000678Z",NULL}`,
		`{NULL,NULL,"{\"datacontenttype\":\"image/png\",\"source\":\"/s\"}"}`,
		`{NULL,NULL,"\\x89ff"}`,
	} {
		if args[i] != want {
			t.Errorf("argument %d: %v, want %v", i+1, args[i], want)
		}
	}
	if len(results) != 3 || results[0].Account != events.DefaultAccount || string(results[1].Data) != "null" {
		t.Errorf("results %+v", results)
	}
}

func TestAFieldThatNoEventOfABatchHasIsNull(t *testing.T) {
	t.Parallel()
	args, _, err := encode([]events.Event{{Type: "A"}, {Type: "B", ID: "b"}})
	if err != nil {
		t.Fatal(err)
	}
	if args[8] != nil || args[9] != nil {
		t.Errorf("attributes %v and bytes %v of events that have none", args[8], args[9])
	}
}

func TestAnInvalidEventIsNamedAndNothingIsSent(t *testing.T) {
	t.Parallel()
	for _, bad := range []events.Event{
		{}, {Type: "a.#"}, {Type: "a", ID: "a b"}, {Type: "a", Data: []byte("{")}, {Type: "a", Subject: strings.Repeat("s", 513)}, {Type: "a", Account: "Acme"},
	} {
		// The transaction is used only after all events are checked.
		_, err := Append(t.Context(), nil, events.Event{Type: "good"}, bad)
		if !errors.Is(err, events.ErrInvalid) || !strings.HasPrefix(err.Error(), "event 1: ") {
			t.Errorf("%+v: %v", bad, err)
		}
	}
	if got, err := Append(t.Context(), nil); len(got) > 0 || err != nil {
		t.Errorf("no events: %v, %v", got, err)
	}
}
