package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"posthorn/services/internal/audit"
	"posthorn/services/internal/eventlog"
	"posthorn/services/internal/operate"
	"posthorn/services/internal/postgres"
)

// A binding made by hand keeps the broker busy with one event for longer than
// the relay waits.
func TestAnEventThatTheExchangeDoesNotConfirmHoldsUpNoOther(t *testing.T) {
	t.Parallel()
	s := newSystem(t, "")
	s.broker.PublishTimeout = time.Second
	s.startAPI()
	s.startRelay()
	s.startDelivery(nil)
	sub := newSubscriber(t, nil)
	s.subscribe(sub.URL, nil, "#")
	first := s.post("a", 1)
	eventually(t, patience, "deliveries work", func() bool { return len(sub.got()) == 1 })
	s.bindForeign("w" + strings.Repeat(".#", 40))

	ids := append(first, s.post("b", 3)...)
	stuck := s.post("w.a.b.c.d", 1)
	gone := newSubscriber(t, nil)
	doomed := s.subscribe(gone.URL, nil, "c")
	s.must(http.MethodDelete, "/subscription/"+doomed.ID, nil, nil)
	ids = append(ids, s.post("c", 50)...)
	eventually(t, 2*patience, "all events have arrived", func() bool { return len(sub.times()) == len(ids)+1 })
	// The exchange may route it after all, once for each time that it was
	// published there before it was rerouted.
	times := sub.times()
	if n := times[stuck[0]]; n < 1 || n > 3 {
		t.Errorf("the event that was rerouted arrived %d times", n)
	}
	for _, id := range ids {
		if times[id] != 1 {
			t.Errorf("event %s arrived %d times, want once", id, times[id])
		}
	}
	once(t, gone, nil)

	eventually(t, patience, "the relay is at the end of the log", s.relayed)
	aside, err := eventlog.ListQuarantined(t.Context(), s.db, 0, false, 10)
	if err != nil {
		t.Fatal(err)
	}
	if len(aside) != 1 || aside[0].EventID != stuck[0] || aside[0].Status != eventlog.Rerouted ||
		!strings.Contains(aside[0].Reason, "no confirm") {
		t.Errorf("in quarantine: %+v, want %s to be rerouted for lack of a confirm", aside, stuck[0])
	}
	if _, err := operate.New(s.db, nil).ReleaseQuarantined(t.Context(), aside[0].Position); err != nil {
		t.Error(err)
	}
	if n, err := eventlog.CountQuarantined(t.Context(), s.db); err != nil || n != 0 {
		t.Errorf("%d in quarantine, %v, want none after the release", n, err)
	}
}

// bindForeign binds a foreign queue to the exchange of events.
func (s *system) bindForeign(pattern string) {
	s.t.Helper()
	conn, err := amqp.Dial(s.broker.URL)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = conn.Close() })
	ch, err := conn.Channel()
	if err != nil {
		s.t.Fatal(err)
	}
	q, err := ch.QueueDeclare("", false, true, true, false, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	if err := ch.QueueBind(q.Name, pattern, s.broker.Names().Events("default"), false, nil); err != nil {
		s.t.Fatal(err)
	}
}

// If one queue refuses a message, the broker refuses the whole publish.
func TestAQueueThatRefusesMessagesAffectsOnlyItsSubscription(t *testing.T) {
	t.Parallel()
	s := startSystem(t)
	healthy := newSubscriber(t, nil)
	s.subscribe(healthy.URL, nil, "A")
	release := make(chan struct{})
	full := newSubscriber(t, func(int, *http.Request) int { <-release; return http.StatusOK })
	defer close(release)
	limited := s.subscribe(full.URL, map[string]any{"maxInFlight": 1}, "A")
	s.post("B", 1)
	eventually(t, patience, "the queue is there", func() bool { return s.exists(s.broker.Names().DeliverQueue(limited.ID)) })
	s.limitQueue(limited.ID)

	ids := s.post("A", 400)
	eventually(t, 2*patience, "the other subscription has all", func() bool { return len(healthy.times()) == len(ids) })
	once(t, healthy, ids)
}

func (s *system) exists(queue string) bool {
	s.t.Helper()
	conn, err := amqp.Dial(s.broker.URL)
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	ch, err := conn.Channel()
	if err != nil {
		s.t.Fatal(err)
	}
	_, err = ch.QueueDeclarePassive(queue, true, false, false, false, nil)
	return err == nil
}

// limitQueue replaces a subscription's queue with one that takes ten messages.
func (s *system) limitQueue(id string) {
	s.t.Helper()
	conn, err := amqp.Dial(s.broker.URL)
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	ch, err := conn.Channel()
	if err != nil {
		s.t.Fatal(err)
	}
	names := s.broker.Names()
	queue := names.DeliverQueue(id)
	if _, err := ch.QueueDelete(queue, false, false, false); err != nil {
		s.t.Fatal(err)
	}
	if _, err := ch.QueueDeclare(queue, true, false, false, false, amqp.Table{
		"x-queue-type": "classic", "x-max-length": 10, "x-overflow": "reject-publish",
	}); err != nil {
		s.t.Fatal(err)
	}
	for exchange, key := range map[string]string{names.Events("default"): "A", names.Deliver(): id} {
		if err := ch.QueueBind(queue, key, exchange, false, nil); err != nil {
			s.t.Fatal(err)
		}
	}
}

// hostile is a row of the log that no interface accepts, with garbage in one
// column.
type hostile struct{ column, value string }

// hostileRows are the known cases and further random ones.
func hostileRows(rnd *rand.Rand) []hostile {
	rows := []hostile{
		{"occurred_at", `'infinity'`},
		{"occurred_at", `'-infinity'`},
		{"occurred_at", `'4713-01-01 BC'`},
		{"occurred_at", `'0001-01-01 BC'`},
		{"occurred_at", `'10000-01-01'`},
		{"occurred_at", `'294276-12-31'`},
		{"recorded_at", `'infinity'`},
		{"recorded_at", `'-infinity'`},
		{"recorded_at", `'294276-12-31'`},
		{"account", `'nobody'`},
		{"account", `''`},
		{"account", `'Ä ö'`},
		{"account", `repeat('a', 300)`},
		{"kind", `'subscription'`},
		{"kind", `'test'`},
		{"kind", `'future'`},
		{"kind", `''`},
		{"type", `''`},
		{"type", `'a..b'`},
		{"type", `'ä'`},
		{"type", `repeat('a', 300)`},
		{"type", `'#'`},
		{"type", `repeat('a.', 59) || 'a'`},
		{"id", `''`},
		{"id", `'a.b'`},
		{"id", `'ümlaut'`},
		{"id", `repeat('i', 300)`},
		{"id", `E'a\nb'`},
		{"id", `'a b'`},
		{"subject", `repeat('s', 100000)`},
		{"subject", `E'\u0001\u0085'`},
		{"data", `''`},
		{"data", `'\xff00'`},
		{"data", `'\x00'`},
		{"data", `'{'`},
		{"data", `'{"a":1}{"b":2}'`},
		{"data", `convert_to('{"a":1,"a":2}', 'UTF8')`},
		{"data", `'1e400'`},
		{"data", `convert_to('"' || repeat('x', 2000000) || '"', 'UTF8')`},
		{"data", `convert_to(repeat('[', 5000) || repeat(']', 5000), 'UTF8')`},
		{"metadata", `'[]'`},
		{"metadata", `'1'`},
		{"metadata", `'{"traceparent": {"a": [1]}}'`},
		{"metadata", `'{"n": 1}'`},
		{"metadata", `jsonb_build_object('traceparent', repeat('x', 100000))`},
		{"metadata", `'{"traceparent": "a\nb"}'`},
	}
	columns := []string{"id", "account", "type", "subject"}
	for range 40 {
		text := make([]rune, 1+rnd.IntN(20))
		for i := range text {
			text[i] = []rune{'a', '.', '#', '*', ' ', '\n', 0x85, 0x202e, 0xe9, 0x1f600, '\'', '"', '\\', '%', '/'}[rnd.IntN(15)]
		}
		rows = append(rows, hostile{columns[rnd.IntN(len(columns))], "'" + strings.ReplaceAll(string(text), "'", "''") + "'"})
		bytes := make([]byte, rnd.IntN(30))
		for i := range bytes {
			bytes[i] = byte(rnd.IntN(256))
		}
		rows = append(rows, hostile{"data", fmt.Sprintf(`'\x%x'`, bytes)})
	}
	return rows
}

// Whatever the owner of the tables, an import or an older version has written
// into the log, later events arrive, and every reader of the log terminates.
func TestNoRecordStopsThoseBehindIt(t *testing.T) {
	t.Parallel()
	s := newSystem(t, "")
	s.admitAnything()
	s.startAPI()
	s.startRelay()
	s.startDelivery(nil)
	sub := newSubscriber(t, nil)
	known := s.subscribe(sub.URL, nil, "good")

	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rows := hostileRows(rand.New(rand.NewPCG(seed, 1)))
	// Subscription records with garbage in them, including one of a real subscription.
	for _, data := range []string{`{`, `[]`, `{"id":"sub_x"}`, `{"id":"` + known.ID + `","account":"other","eventTypes":["#"],"status":"active"}`} {
		rows = append(rows, hostile{"kind, subject, data", `'subscription', '` + known.ID + `', convert_to('` + data + `', 'UTF8')`})
	}
	for i, row := range rows {
		s.insertHostile(i, row)
		good := s.post("good", 1)
		eventually(t, patience, fmt.Sprintf("a good event arrives behind %s = %.80s", row.column, row.value),
			func() bool { return sub.times()[good[0]] == 1 })
	}

	// An event can arrive before the relay has recorded its window.
	eventually(t, patience, "the relay is at the end of the log", s.relayed)
	held, err := eventlog.ListQuarantined(t.Context(), s.db, 0, false, 1000)
	if err != nil {
		t.Fatal(err)
	}
	if len(held) < 30 {
		t.Errorf("%d records are in quarantine, want those that cannot be forwarded", len(held))
	}
	s.readEverything()
	s.releaseOneAndDropTheRest(sub, held)
}

// admitAnything drops the log's check constraints, as if an older version had
// written it.
func (s *system) admitAnything() {
	s.t.Helper()
	if _, err := s.db.ExecContext(s.t.Context(), `
		DO $$
		DECLARE c record;
		BEGIN
			FOR c IN SELECT conname FROM pg_constraint WHERE conrelid = 'posthorn.outbox'::regclass AND contype = 'c' LOOP
				EXECUTE format('ALTER TABLE posthorn.outbox DROP CONSTRAINT %I', c.conname);
			END LOOP;
		END $$`); err != nil {
		s.t.Fatal(err)
	}
}

func (s *system) insertHostile(i int, row hostile) {
	s.t.Helper()
	columns := map[string]string{"id": fmt.Sprintf("'h%d'", i), "type": "'good'", "data": `'{}'`}
	for column := range strings.SplitSeq(row.column, ", ") {
		delete(columns, column)
	}
	names, values := row.column, row.value
	for name, value := range columns {
		names, values = names+", "+name, values+", "+value
	}
	if _, err := s.db.ExecContext(s.t.Context(), `INSERT INTO posthorn.outbox (`+names+`) VALUES (`+values+`)`); err != nil {
		s.t.Fatalf("insert %s = %.80s: %v", row.column, row.value, err)
	}
}

// readEverything reads each list to its end.
func (s *system) readEverything() {
	s.t.Helper()
	for path, next := "/events?limit=20", ""; path != ""; path = next {
		var page struct {
			NextCursor string `json:"nextCursor"`
		}
		s.must(http.MethodGet, path, nil, &page)
		if next = ""; page.NextCursor != "" {
			next = "/events?limit=20&cursor=" + page.NextCursor
		}
	}
	horizon, err := eventlog.Horizon(s.t.Context(), s.db)
	if err != nil {
		s.t.Fatal(err)
	}
	for after := int64(0); after < horizon; {
		_, reached, err := eventlog.ReadSlice(s.t.Context(), s.db, eventlog.Slice{After: after, Through: horizon}, 50)
		if err != nil {
			s.t.Fatal(err)
		}
		after = reached
	}
	var found []audit.Finding
	if _, err := audit.Run(s.t.Context(), s.db, audit.Options{Found: func(f audit.Finding) error {
		if f.Problem != audit.Quarantine {
			found = append(found, f)
		}
		return nil
	}}); err != nil || len(found) > 0 {
		s.t.Errorf("audit: %v, %+v", err, found)
	}
}

// releaseOneAndDropTheRest repairs and releases one record, and drops the others.
func (s *system) releaseOneAndDropTheRest(sub *subscriber, held []eventlog.Quarantined) {
	s.t.Helper()
	ctx := context.WithoutCancel(s.t.Context())
	var mended eventlog.Quarantined
	for _, r := range held {
		_, err := operate.New(s.db, nil).ReleaseQuarantined(ctx, r.Position)
		if !errors.Is(err, eventlog.ErrUnfit) {
			s.t.Errorf("release of %+v: %v, want ErrUnfit", r, err)
		}
		if strings.HasPrefix(r.Reason, eventlog.ErrUnfit.Error()+": occurred_at is infinity") {
			mended = r
		}
	}
	if mended.Position == 0 {
		s.t.Fatal("the record of the end of time is not in quarantine")
	}
	if _, err := s.db.ExecContext(ctx, `UPDATE posthorn.outbox SET occurred_at = now() WHERE position = $1`, mended.Position); err != nil {
		s.t.Fatal(err)
	}
	if _, err := operate.New(s.db, nil).ReleaseQuarantined(ctx, mended.Position); err != nil {
		s.t.Fatal(err)
	}
	eventually(s.t, 2*patience, "the mended event arrives", func() bool { return sub.times()[mended.EventID] == 1 })
	for _, r := range held {
		_, err := eventlog.DropQuarantined(ctx, s.db, r.Position)
		if wrong := r.Position == mended.Position; wrong != errors.Is(err, postgres.ErrState) || err != nil && !wrong {
			s.t.Errorf("drop of %+v: %v", r, err)
		}
	}
	report, err := audit.Run(ctx, s.db, audit.Options{})
	if err != nil {
		s.t.Fatal(err)
	}
	for problem, n := range report.Found {
		s.t.Errorf("audit: %d %s, want it to be clean", n, problem)
	}
}
