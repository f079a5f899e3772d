package eventlog_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"posthorn/events"
	"posthorn/migrations/pgtest"
	"posthorn/outbox"
	"posthorn/services/internal/eventlog"
	"posthorn/services/internal/postgres"
)

// writer appends in transactions that stay open for a while, commit in any
// order, roll back, or roll back a part of themselves.
type writer struct {
	db        *sql.DB
	rnd       *rand.Rand
	mu        *sync.Mutex
	committed map[int64]string
}

func (w *writer) run(ctx context.Context, transactions int) error {
	for range transactions {
		if err := w.transaction(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (w *writer) transaction(ctx context.Context) error {
	tx, err := w.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	mine := map[int64]string{}
	for range 1 + w.rnd.IntN(3) {
		undo := w.rnd.IntN(4) == 0
		if undo {
			if _, err := tx.ExecContext(ctx, "SAVEPOINT s"); err != nil {
				return err
			}
		}
		batch := make([]events.Event, 1+w.rnd.IntN(3))
		for i := range batch {
			batch[i] = events.Event{Type: "T"}
		}
		appended, err := outbox.Append(ctx, tx, batch...)
		if err != nil {
			return err
		}
		if err := w.linger(ctx, tx); err != nil {
			return err
		}
		if undo {
			if _, err := tx.ExecContext(ctx, "ROLLBACK TO SAVEPOINT s"); err != nil {
				return err
			}
			continue
		}
		for _, e := range appended {
			mine[e.Position] = e.ID
		}
	}
	if w.rnd.IntN(4) == 0 {
		return tx.Rollback()
	}
	// A reader may see the commit before it returns here.
	w.mu.Lock()
	maps.Copy(w.committed, mine)
	w.mu.Unlock()
	return tx.Commit()
}

// linger keeps the transaction open, on the server's own clock.
func (w *writer) linger(ctx context.Context, tx *sql.Tx) error {
	if w.rnd.IntN(3) > 0 {
		return nil
	}
	_, err := tx.ExecContext(ctx, "SELECT pg_sleep($1)", w.rnd.Float64()*0.01)
	return err
}

// read follows the log until done is closed and nothing is left.
func read(ctx context.Context, db *sql.DB, positions int, done <-chan struct{}) ([]events.Event, error) {
	var (
		after int64
		seen  []events.Event
	)
	for {
		last := false
		select {
		case <-done:
			last = true
		default:
		}
		horizon, err := eventlog.Horizon(ctx, db)
		if err != nil {
			return nil, err
		}
		if horizon == after {
			if last {
				return seen, nil
			}
			continue
		}
		for after < horizon {
			w, err := eventlog.ReadWindow(ctx, db, after, horizon, positions, 1<<20)
			if err != nil {
				return nil, err
			}
			for _, r := range w.Records {
				seen = append(seen, r.Event)
			}
			after = w.Through
		}
	}
}

func TestReadersSeeEveryCommittedRecordOnceAndInOrder(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.SetMaxOpenConns(24)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)

	var (
		mu        sync.Mutex
		committed = map[int64]string{}
		writers   sync.WaitGroup
		done      = make(chan struct{})
	)
	for i := range 12 {
		w := &writer{db: db, rnd: rand.New(rand.NewPCG(seed, uint64(i))), mu: &mu, committed: committed}
		writers.Go(func() {
			if err := w.run(t.Context(), 40); err != nil {
				t.Errorf("write: %v", err)
			}
		})
	}
	var (
		readers sync.WaitGroup
		seen    [3][]events.Event
	)
	for i, window := range []int{1, 7, 1000} {
		readers.Go(func() {
			var err error
			if seen[i], err = read(t.Context(), db, window, done); err != nil {
				t.Errorf("read: %v", err)
			}
		})
	}
	writers.Wait()
	close(done)
	readers.Wait()

	want := slices.Sorted(maps.Keys(committed))
	if len(want) < 200 {
		t.Fatalf("only %d records were committed", len(want))
	}
	for i := range seen {
		got := make([]int64, len(seen[i]))
		for j, e := range seen[i] {
			got[j] = e.Position
			if committed[e.Position] != e.ID {
				t.Errorf("position %d has id %q, want %q", e.Position, e.ID, committed[e.Position])
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("reader %d: positions (-committed +read):\n%s", i, diff)
		}
	}
}

func TestGoingByPositionAloneSkipsRecords(t *testing.T) {
	t.Parallel()
	// The control of the test above: a reader that only asks for higher
	// positions skips a late commit, and ours does not.
	db := pgtest.New(t)
	ctx := t.Context()
	late, err := db.BeginTx(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = late.Rollback() }()
	first, err := outbox.Append(ctx, late, events.Event{Type: "LATE"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := outbox.Append(ctx, mustConn(t, db), events.Event{Type: "EARLY"}); err != nil {
		t.Fatal(err)
	}
	var naive int64
	if err := db.QueryRowContext(ctx, `SELECT max(position) FROM posthorn.outbox`).Scan(&naive); err != nil {
		t.Fatal(err)
	}
	horizon, err := eventlog.Horizon(ctx, db)
	if err != nil {
		t.Fatal(err)
	}
	if naive <= first[0].Position {
		t.Errorf("a naive reader is at %d and would not skip position %d", naive, first[0].Position)
	}
	if horizon >= first[0].Position {
		t.Errorf("horizon = %d, want below the open position %d", horizon, first[0].Position)
	}
	if err := late.Commit(); err != nil {
		t.Fatal(err)
	}
	if horizon, err = eventlog.Horizon(ctx, db); err != nil || horizon < naive {
		t.Errorf("horizon after the commit = %d, %v, want %d", horizon, err, naive)
	}
}

func TestAwaitHorizonReturnsWhenTheLogIsSettled(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	ctx := t.Context()
	if got, err := eventlog.AwaitHorizon(ctx, db, 0, time.Millisecond, 20*time.Millisecond); err != nil || got != 0 {
		t.Errorf("with nothing there, AwaitHorizon = %d, %v, want 0", got, err)
	}
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback() }()
	appended, err := outbox.Append(ctx, tx, events.Event{Type: "T"})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := eventlog.AwaitHorizon(ctx, db, 0, time.Millisecond, 20*time.Millisecond); err != nil || got != 0 {
		t.Errorf("with an open append, AwaitHorizon = %d, %v, want 0", got, err)
	}
	type answer struct {
		horizon int64
		err     error
	}
	waiting, answered := mustConn(t, db), make(chan answer, 1)
	go func() {
		horizon, err := eventlog.AwaitHorizon(ctx, waiting, 0, time.Millisecond, time.Minute)
		answered <- answer{horizon, err}
	}()
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	if got := <-answered; got.err != nil || got.horizon != appended[0].Position {
		t.Errorf("after the commit, AwaitHorizon = %d, %v, want %d", got.horizon, got.err, appended[0].Position)
	}
}

func mustConn(t *testing.T, db *sql.DB) *sql.Conn {
	t.Helper()
	conn, err := db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func TestAPlainInsertKeepsTheReadingOrder(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	ctx := t.Context()
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback() }()
	var position int64
	if err := tx.QueryRowContext(ctx, `
		INSERT INTO posthorn.outbox (id, type, data) VALUES ('evt_1', 'T', '{}') RETURNING position`).Scan(&position); err != nil {
		t.Fatal(err)
	}
	horizon, err := eventlog.Horizon(ctx, db)
	if err != nil || horizon >= position {
		t.Errorf("horizon = %d, %v, want below the open position %d", horizon, err, position)
	}
}

func TestTransactionsOfOthersDoNotHoldTheHorizon(t *testing.T) {
	t.Parallel()
	db, other := pgtest.New(t), pgtest.New(t)
	ctx := t.Context()
	for _, open := range []*sql.DB{db, other} {
		tx, err := open.BeginTx(ctx, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = tx.Rollback() }()
		if _, err := tx.ExecContext(ctx, `SELECT pg_current_xact_id()`); err != nil {
			t.Fatal(err)
		}
	}
	// An appender in another database of the cluster holds a lock of the same
	// kind, on a lower position.
	foreign, err := other.BeginTx(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = foreign.Rollback() }()
	if _, err := outbox.Append(ctx, foreign, events.Event{Type: "T"}); err != nil {
		t.Fatal(err)
	}
	appended, err := outbox.Append(ctx, mustConn(t, db), events.Event{Type: "T"})
	if err != nil {
		t.Fatal(err)
	}
	horizon, err := eventlog.Horizon(ctx, db)
	if err != nil || horizon < appended[0].Position {
		t.Errorf("horizon = %d, %v, want %d", horizon, err, appended[0].Position)
	}
}

func TestAnAppenderHoldsOneLockHoweverOftenItAppends(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	ctx := t.Context()
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback() }()
	// Otherwise a long transaction would fill the shared lock table.
	for range 50 {
		if _, err := outbox.Append(ctx, tx, events.Event{Type: "T"}); err != nil {
			t.Fatal(err)
		}
	}
	var locks int
	if err := tx.QueryRowContext(ctx, `
		SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()`).Scan(&locks); err != nil {
		t.Fatal(err)
	}
	if locks != 1 {
		t.Errorf("%d advisory locks are held, want 1", locks)
	}
}

func TestAnIdAppendsOnce(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.SetMaxOpenConns(16)
	ctx := t.Context()
	event := events.Event{ID: "order-7", Type: "ORDER_PAID", Data: []byte(`{"total": 12}`)}
	var (
		callers   sync.WaitGroup
		mu        sync.Mutex
		positions = map[int64]int{}
	)
	for range 16 {
		callers.Go(func() {
			err := postgres.InTx(ctx, db, func(tx *sql.Tx) error {
				appended, err := outbox.Append(ctx, tx, event)
				if err != nil {
					return err
				}
				mu.Lock()
				positions[appended[0].Position]++
				mu.Unlock()
				return nil
			})
			if err != nil {
				t.Errorf("append: %v", err)
			}
		})
	}
	callers.Wait()
	if len(positions) != 1 {
		t.Errorf("positions of one id = %v, want one", positions)
	}
	event.Data = []byte(`{"total": 13}`)
	if _, err := outbox.Append(ctx, mustConn(t, db), event); !errors.Is(err, outbox.ErrConflict) {
		t.Errorf("append of other content under the id = %v, want ErrConflict", err)
	}
}

func TestBatchesThatShareIdsInAnyOrderDoNotDeadlock(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.SetMaxOpenConns(16)
	var callers sync.WaitGroup
	for i := range 16 {
		rnd := rand.New(rand.NewPCG(1, uint64(i)))
		callers.Go(func() {
			for round := range 10 {
				batch := make([]events.Event, 20)
				for j, n := range rnd.Perm(20) {
					batch[j] = events.Event{ID: fmt.Sprintf("id-%d-%d", round, n), Type: "T"}
				}
				err := postgres.InTx(t.Context(), db, func(tx *sql.Tx) error {
					_, err := outbox.Append(t.Context(), tx, batch...)
					return err
				})
				if err != nil {
					t.Errorf("append: %v", err)
				}
			}
		})
	}
	callers.Wait()
	var records int
	if err := db.QueryRowContext(t.Context(), `SELECT count(*) FROM posthorn.outbox`).Scan(&records); err != nil {
		t.Fatal(err)
	}
	if records != 200 {
		t.Errorf("%d records, want 200", records)
	}
}

func TestDataIsKeptByteForByte(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	ctx := t.Context()
	texts := []string{
		`{"a":  1.10, "b": 2, "z" : "\ud83d\ude00 é \\ \" '' {},"}`, `"x"`, `[1,2 , 3]`, `null`, `1e300`, "{\n\t\"k\" : true }",
	}
	var batch []events.Event
	for _, text := range texts {
		batch = append(batch, events.Event{
			Type: "T", Subject: `quote " back \ comma , brace } NULL`, Data: []byte(text),
			Metadata: map[string]string{"traceparent": `00-"-\`},
		})
	}
	if _, err := outbox.Append(ctx, mustConn(t, db), batch...); err != nil {
		t.Fatal(err)
	}
	w, err := eventlog.ReadWindow(ctx, db, 0, 1000, 1000, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	if len(w.Records) != len(texts) {
		t.Fatalf("%d records, want %d", len(w.Records), len(texts))
	}
	for i, r := range w.Records {
		if string(r.Data) != texts[i] || r.Subject != batch[i].Subject || r.Metadata["traceparent"] != batch[i].Metadata["traceparent"] {
			t.Errorf("record %d = %q %q %v, want %q", i, r.Data, r.Subject, r.Metadata, texts[i])
		}
	}
}

func TestSQLFunctionAppendsFromAnyLanguage(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	ctx := t.Context()
	var id, again string
	if err := db.QueryRowContext(ctx, `SELECT posthorn.append_event('ORDER_PAID', 'order/7', '{"total": 12}')`).Scan(&id); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := db.QueryRowContext(ctx, `SELECT posthorn.append_event('ORDER_PAID', id => 'mine')`).Scan(&again); err != nil || again != "mine" {
			t.Fatalf("append_event = %q, %v", again, err)
		}
	}
	if _, err := db.ExecContext(ctx, `SELECT posthorn.append_event('ORDER_PAID', 'other', id => 'mine')`); err == nil {
		t.Error("other content under an id was appended")
	}
	for _, bad := range []string{"", "a..b", "a b", ".a", "é"} {
		if _, err := db.ExecContext(ctx, `SELECT posthorn.append_event($1)`, bad); err == nil {
			t.Errorf("type %q was appended", bad)
		}
	}
	w, err := eventlog.ReadWindow(ctx, db, 0, 1000, 1000, 1<<20)
	if err != nil || len(w.Records) != 2 {
		t.Fatalf("%d records, %v, want 2", len(w.Records), err)
	}
	if r := w.Records[0]; r.ID != id || r.Subject != "order/7" || string(r.Data) != `{"total": 12}` || r.Account != "default" {
		t.Errorf("record = %+v", r)
	}
	if age := time.Since(w.Records[0].OccurredAt); age < 0 || age > time.Minute {
		t.Errorf("occurred %v ago", age)
	}
}

func TestAWindowStopsAtItsLimitOfBytes(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	ctx := t.Context()
	big := []byte(`"` + fmt.Sprintf("%01000d", 7) + `"`)
	for range 5 {
		if _, err := outbox.Append(ctx, mustConn(t, db), events.Event{Type: "T", Data: big}); err != nil {
			t.Fatal(err)
		}
	}
	var after int64
	var sizes []int
	for after < 5 {
		w, err := eventlog.ReadWindow(ctx, db, after, 5, 100, 2100)
		if err != nil {
			t.Fatal(err)
		}
		sizes, after = append(sizes, len(w.Records)), w.Through
	}
	if diff := cmp.Diff([]int{2, 2, 1}, sizes); diff != "" {
		t.Errorf("window sizes (-want +got):\n%s", diff)
	}
}
