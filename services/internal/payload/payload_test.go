package payload_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"posthorn/events"
	"posthorn/services/internal/eventlog"
	"posthorn/services/internal/payload"
)

func TestAnEventIsRenderedAsItsBody(t *testing.T) {
	t.Parallel()
	record := eventlog.Record{Event: events.Event{
		ID: "e1", Type: "T", Data: []byte(`{"a":1.0}`), Metadata: map[string]string{"traceparent": "00-a-b-01", "tracestate": "x=y"},
	}}
	p := payload.Render(&record)
	if p.ID != "e1" || p.ContentType != "application/json" || string(p.Body) != string(record.AppendBody(nil)) {
		t.Errorf("payload %+v", p)
	}
	want := map[string]string{"Content-Type": "application/json", "Webhook-Id": "e1", "Traceparent": "00-a-b-01", "Tracestate": "x=y"}
	if diff := cmp.Diff(want, p.Shown()); diff != "" {
		t.Errorf("headers (-want +got):\n%s", diff)
	}
}

func TestATraceContextThatIsNoneIsLeftOut(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{"", "a\r\nX-Evil: 1", "\x00", "é", strings.Repeat("a", 513)} {
		if got := payload.TraceOf(map[string]string{"traceparent": bad, "tracestate": "x=y"}); got != (payload.Trace{}) || got.Headers() != nil {
			t.Errorf("traceparent %q is passed on: %+v", bad, got)
		}
		got := payload.TraceOf(map[string]string{"traceparent": "00-a-b-01", "tracestate": bad})
		if got != (payload.Trace{Parent: "00-a-b-01"}) {
			t.Errorf("tracestate %q is passed on: %+v", bad, got)
		}
	}
}
