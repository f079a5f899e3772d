package ledger_test

import (
	"testing"
	"time"

	"posthorn/migrations/pgtest"
	"posthorn/services/internal/ledger"
	"posthorn/services/internal/subscription"
)

// A queue may contain foreign messages, and a broker may have newer messages
// than a database that was restored from an older backup.
func TestAnEventThatIsNotInTheLogCannotBeClaimed(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	sub := subscription.NewID()
	for _, statement := range []string{
		`INSERT INTO posthorn.outbox (id, type, data) SELECT 'e' || n, 'E', '{}' FROM generate_series(0, 5) n`,
		`UPDATE posthorn.readers SET position = 4 WHERE name = 'relay'`,
	} {
		if _, err := db.ExecContext(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	claim := func(position int64, event string) bool {
		t.Helper()
		answers, err := ledger.ClaimAttempts(t.Context(), db, []ledger.Claim{{
			Position: position, Subscription: sub, EventID: event, Cause: "retry", Attempts: 1, For: time.Minute,
		}})
		if err != nil {
			t.Fatal(err)
		}
		return answers[0].OK
	}
	if !claim(5, "e4") {
		t.Error("an event whose delivery the relay has yet to enter is refused")
	}
	if claim(6, "forged") {
		t.Error("another event at the position of e5 is granted")
	}
	if claim(1_000_000, "e5") {
		t.Error("e5 at another position is granted")
	}
	var rows int
	if err := db.QueryRowContext(t.Context(), `SELECT count(*) FROM posthorn.deliveries WHERE position > 5`).Scan(&rows); err != nil {
		t.Fatal(err)
	}
	if rows != 0 {
		t.Errorf("%d deliveries were entered, want none", rows)
	}
	if _, err := db.ExecContext(t.Context(), `UPDATE posthorn.deliveries SET status = 'retrying', finished_at = NULL WHERE position = 2`); err != nil {
		t.Fatal(err)
	}
	if claim(2, "forged") || !claim(2, "e1") {
		t.Error("want the delivery of e1 granted only to e1")
	}
}
