package eventlog_test

import (
	"slices"
	"testing"

	"posthorn/migrations/pgtest"
	"posthorn/services/internal/eventlog"
)

func TestASliceIsReadInPartsOfBoundedSize(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	const events, size = 30, 1_000_000
	if _, err := db.ExecContext(t.Context(), `
		INSERT INTO posthorn.outbox (id, type, data)
		SELECT 'e' || n, 'BIG', convert_to('"' || repeat('a', $2 - 2) || '"', 'UTF8') FROM generate_series(1, $1) n`, events, size); err != nil {
		t.Fatal(err)
	}
	var got []int64
	part := func(records []eventlog.Record) {
		t.Helper()
		bytes := 0
		for _, r := range records {
			got, bytes = append(got, r.Position), bytes+len(r.Data)
		}
		if len(records) == 0 || bytes > 8<<20 {
			t.Errorf("a part of %d records with %d bytes", len(records), bytes)
		}
	}
	check := func(what string, first, last int64) {
		t.Helper()
		var want []int64
		for p := first; p <= last; p++ {
			want = append(want, p)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: positions %v, want %v", what, got, want)
		}
		got = nil
	}
	slice := eventlog.Slice{Through: events}
	for _, n := range []int{1, 25, 30, 1000} {
		err := eventlog.EndOfSlice(t.Context(), db, slice, n, func(records []eventlog.Record) error { part(records); return nil })
		if err != nil {
			t.Fatal(err)
		}
		check("the end of the log", int64(max(events-n, 0))+1, events)
	}
	for slice.After < slice.Through {
		records, reached, err := eventlog.ReadSlice(t.Context(), db, slice, 1000)
		if err != nil {
			t.Fatal(err)
		}
		part(records)
		slice.After = reached
	}
	check("the log", 1, events)
}
