package relay_test

import (
	"testing"
	"time"

	"posthorn/events"
	"posthorn/migrations/pgtest"
	"posthorn/services/internal/ledger"
	"posthorn/services/internal/subscription"
	"posthorn/services/relay"
)

func TestAllDeliveriesOfADeletedSubscriptionAreCancelled(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	ctx := t.Context()
	conn, err := db.Conn(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	id := subscription.NewID()
	route := relay.Route{ID: id, Account: "default", EventTypes: []events.Pattern{"T"}, Status: subscription.Active}
	if err := relay.Advance(ctx, conn, conn, relay.Progress{From: 0, Through: 1, Changed: []relay.Route{route}}); err != nil {
		t.Fatal(err)
	}
	// One delivery failed before the relay enters it, one is entered by the
	// window that deletes the subscription, and one was entered before.
	owed := func(positions ...int64) (list []ledger.Owed) {
		for _, p := range positions {
			list = append(list, ledger.Owed{Position: p, Subscription: id, EventID: "evt_1", Cause: "live"})
		}
		return list
	}
	if err := relay.Advance(ctx, conn, conn, relay.Progress{From: 1, Through: 2, Owed: owed(2)}); err != nil {
		t.Fatal(err)
	}
	if err := ledger.RecordAttempts(ctx, db, []ledger.Attempt{{
		Position: 3, Subscription: id, EventID: "evt_1", Number: 1, Cause: "live", StartedAt: time.Now(), ErrorClass: "status",
		Status: ledger.Retrying, RetryIn: time.Minute,
	}}); err != nil {
		t.Fatal(err)
	}
	route.Status = subscription.Deleted
	if err := relay.Advance(ctx, conn, conn, relay.Progress{From: 2, Through: 5, Owed: owed(3, 4), Changed: []relay.Route{route}}); err != nil {
		t.Fatal(err)
	}
	var cancelled, due int
	if err := db.QueryRowContext(ctx, `
		SELECT count(*) FILTER (WHERE status = 'cancelled'), count(next_attempt_at) FROM posthorn.deliveries`).Scan(&cancelled, &due); err != nil {
		t.Fatal(err)
	}
	if cancelled != 3 || due != 0 {
		t.Errorf("%d deliveries are cancelled and %d are due, want 3 and none", cancelled, due)
	}
	if err := relay.Advance(ctx, conn, conn, relay.Progress{From: 2, Through: 9}); err == nil {
		t.Error("a fenced relay moved the position")
	}
}
