package eventlog_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"posthorn/events"
	"posthorn/migrations/pgtest"
	"posthorn/outbox"
	"posthorn/services/internal/eventlog"
)

func TestAGroupAppendsInOrderAndEachAnswersForItself(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	got, err := eventlog.AppendGroup(t.Context(), db, []events.Event{
		{Type: "A", ID: "x"}, {Type: "B", ID: "x"}, {Type: "A", ID: "x"}, {Type: "C"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if got[0].Outcome != outbox.Appended || !errors.Is(got[1].Err, outbox.ErrConflict) || got[2].Outcome != outbox.Existing ||
		got[2].Position != got[0].Position || got[3].Err != nil || got[3].Position <= got[0].Position {
		t.Errorf("got %+v", got)
	}
}

func TestAnEventThatPostgresRefusesFailsAlone(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	// A producer may have its own rules on the table.
	if _, err := db.ExecContext(t.Context(), `ALTER TABLE posthorn.outbox ADD CONSTRAINT no_poison CHECK (subject <> 'poison')`); err != nil {
		t.Fatal(err)
	}
	got, err := eventlog.AppendGroup(t.Context(), db, []events.Event{{Type: "A"}, {Type: "A", Subject: "poison"}, {Type: "A"}})
	if err != nil {
		t.Fatal(err)
	}
	if got[0].Err != nil || got[1].Err == nil || got[2].Err != nil || got[2].Position == 0 {
		t.Errorf("got %+v", got)
	}
	var n int
	if err := db.QueryRowContext(t.Context(), `SELECT count(*) FROM posthorn.outbox`).Scan(&n); err != nil || n != 2 {
		t.Errorf("%d events, %v", n, err)
	}
}

func TestABatchWithAConflictAppendsNothing(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	if _, err := eventlog.AppendBatch(t.Context(), db, "default", "", []events.Event{{Type: "A", ID: "x"}}); err != nil {
		t.Fatal(err)
	}
	_, err := eventlog.AppendBatch(t.Context(), db, "default", "", []events.Event{{Type: "A"}, {Type: "B", ID: "x"}})
	var conflict *eventlog.ConflictError
	if !errors.As(err, &conflict) || len(conflict.Indexes) != 1 || conflict.Indexes[0] != 1 || !errors.Is(err, outbox.ErrConflict) {
		t.Errorf("got %v", err)
	}
	var n int
	if err := db.QueryRowContext(t.Context(), `SELECT count(*) FROM posthorn.outbox`).Scan(&n); err != nil || n != 1 {
		t.Errorf("%d events, %v", n, err)
	}
}

func TestATimeBecomesAPosition(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	// A log with gaps, one event an hour.
	if _, err := db.ExecContext(t.Context(), `
		INSERT INTO posthorn.outbox (position, id, type, data, recorded_at)
		SELECT i * 3, 'e' || i, 'A', 'null', '2026-01-01Z'::timestamptz + i * interval '1 hour' FROM generate_series(1, 500) i`); err != nil {
		t.Fatal(err)
	}
	if _, err := db.ExecContext(t.Context(), `SELECT setval('posthorn.outbox_position', 1500)`); err != nil {
		t.Fatal(err)
	}
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for hour := -1; hour <= 502; hour++ {
		var got int64
		at := start.Add(time.Duration(hour)*time.Hour - time.Minute)
		if err := db.QueryRowContext(t.Context(), `SELECT posthorn.position_since($1)`, at).Scan(&got); err != nil {
			t.Fatal(err)
		}
		want := int64(max(hour, 1)) * 3
		if hour > 500 {
			want = 1501
		}
		// Any position in the gap before it selects the same events.
		if got > want || got <= want-3 {
			t.Errorf("hour %d: position %d, want %d", hour, got, want)
		}
	}
}

// The cost of a page must not depend on its place in the log or on the size of
// the log.
func TestPagesOfEventsAreReadByIndex(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	if _, err := db.ExecContext(t.Context(), `
		INSERT INTO posthorn.outbox (id, type, subject, data)
		SELECT 'e' || i, CASE WHEN i % 100 = 0 THEN 'RARE' ELSE 'COMMON' END, 'photo/' || i % 1000, 'null' FROM generate_series(1, 30000) i`); err != nil {
		t.Fatal(err)
	}
	if _, err := db.ExecContext(t.Context(), `ANALYZE posthorn.outbox`); err != nil {
		t.Fatal(err)
	}
	for _, where := range []string{"type = 'RARE'", "subject = 'photo/7'", "position > 100", "type = 'RARE' AND position < 15000"} {
		rows, err := db.QueryContext(t.Context(), `EXPLAIN SELECT id FROM posthorn.outbox WHERE account = 'default' AND kind <> 'subscription' AND `+where+` ORDER BY position DESC LIMIT 50`)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = rows.Close() }()
		var plan strings.Builder
		for rows.Next() {
			var line string
			if err := rows.Scan(&line); err != nil {
				t.Fatal(err)
			}
			plan.WriteString(line + "\n")
		}
		if err := rows.Err(); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(plan.String(), "Seq Scan on outbox_000000") {
			t.Errorf("%s:\n%s", where, plan.String())
		}
	}
}
