package e2e_test

import (
	"encoding/json"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"posthorn/services/internal/broker"
)

// unexplained is a document without the values that differ between any two deliveries.
func unexplained(t *testing.T, document json.RawMessage) map[string]any {
	t.Helper()
	var fields map[string]any
	if err := json.Unmarshal(document, &fields); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"id", "subscription", "createdAt", "finishedAt"} {
		delete(fields, name)
	}
	return fields
}

// asking answers an event's first request with 503 and a Retry-After, and
// reports how long after that response the second one arrived.
func asking(t *testing.T, value func() string) (url string, waited <-chan time.Duration) {
	t.Helper()
	asked, waits := make(chan time.Time, 1), make(chan time.Duration, 1)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		select {
		case at := <-asked:
			waits <- time.Since(at)
		default:
			asked <- time.Now()
			w.Header().Set("Retry-After", value())
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	t.Cleanup(server.Close)
	return server.URL, waits
}

func TestARetryWaitsAsLongAsTheSubscriberAsks(t *testing.T) {
	t.Parallel()
	s := startSystem(t)
	fixed := func(value string) func() string { return func() string { return value } }
	waits := map[string]<-chan time.Duration{}
	for name, value := range map[string]func() string{
		"seconds": fixed("2"), "a fraction": fixed("1.2"), "a unit": fixed("2s"), "a list": fixed("2, 2"),
		// Without its fraction the date is at least two seconds ahead.
		"a date":           func() string { return time.Now().Add(3 * time.Second).UTC().Format(http.TimeFormat) },
		"an RFC 3339 time": func() string { return time.Now().Add(2 * time.Second).Format(time.RFC3339Nano) },
	} {
		var url string
		url, waits[name] = asking(t, value)
		s.subscribe(url, map[string]any{"retry": map[string]any{"schedule": []string{"1s"}}}, "A")
	}
	s.post("A", 1)
	for name, waited := range waits {
		select {
		case took := <-waited:
			// One case asks for 1.2 s, which is rounded up.
			if took < 2*time.Second {
				t.Errorf("%s: the retry came after %v", name, took)
			}
		case <-time.After(patience):
			t.Fatalf("%s: no retry", name)
		}
	}
}

func TestASubscriberDoesNotLearnWhichNamesExistInside(t *testing.T) {
	t.Parallel()
	s := newSystem(t, "")
	var log lockedBuffer
	s.logger = slog.New(slog.NewTextHandler(&log, nil))
	s.startAPI()
	s.startRelay()
	s.startDelivery(nil)
	none := map[string]any{"retry": map[string]any{"schedule": []string{}}}
	inside := s.subscribe("http://10.0.0.1:8080/hook", none, "A")
	// Go's resolver knows without a query that no such name exists.
	nowhere := s.subscribe("http://rabbitmq.onion:8080/hook", none, "A")
	s.post("A", 3)

	var seen []map[string]any
	for _, sub := range []subscribed{inside, nowhere} {
		eventually(t, patience, "the deliveries are dead", func() bool { return s.ledger(sub.ID)["dead"] == 3 })
		var dead, attempts struct{ Items []json.RawMessage }
		s.must(http.MethodGet, "/dead-letters?errorClass=address&subscription="+sub.ID, nil, &dead)
		s.must(http.MethodGet, "/subscription/"+sub.ID+"/attempts", nil, &attempts)
		if len(dead.Items) != 3 || len(attempts.Items) != 3 {
			t.Fatalf("%d dead letters and %d attempts: %s", len(dead.Items), len(attempts.Items), attempts.Items)
		}
		var messages []broker.Message
		got := s.consume(s.broker.Names().DeadQueue(sub.ID))
		eventually(t, patience, "the dead letters are in their queue", func() bool { messages = got(); return len(messages) == 3 })
		told := map[string]any{}
		for _, d := range messages {
			for _, name := range []string{"posthorn-error-class", "posthorn-last-error", "posthorn-last-status", "posthorn-reason"} {
				told[name] = d.Headers[name]
			}
		}
		for _, name := range []string{"lastError", "errorClass", "lastStatus", "attempts", "status"} {
			told["dead "+name] = unexplained(t, dead.Items[0])[name]
		}
		for _, name := range []string{"outcome", "error", "status", "responseHeaders", "responseBody"} {
			told["attempt "+name] = unexplained(t, attempts.Items[0])[name]
		}
		seen = append(seen, told)
	}
	if diff := cmp.Diff(seen[0], seen[1]); diff != "" {
		t.Errorf("the subscriber sees a difference (-inside +nowhere):\n%s", diff)
	}
	if seen[0]["attempt outcome"] != "address" || seen[0]["posthorn-error-class"] != "address" {
		t.Errorf("shown %v", slices.Sorted(maps.Keys(seen[0])))
	}
	for want, id := range map[string]string{"blocked: ": inside.ID, "dns: ": nowhere.ID} {
		n := 0
		for line := range strings.Lines(log.String()) {
			if strings.Contains(line, "level=INFO") && strings.Contains(line, want) && strings.Contains(line, id) {
				n++
			}
		}
		if n != 1 {
			t.Errorf("%q is logged %d times for 3 refused deliveries:\n%s", want, n, log.String())
		}
	}
}
