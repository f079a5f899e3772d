package ledger_test

import (
	"context"
	"math/rand/v2"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"posthorn/migrations/pgtest"
	"posthorn/services/internal/ledger"
	"posthorn/services/internal/subscription"
	"posthorn/services/relay"
)

// The relay enters deliveries while they are claimed and recorded, each in a
// statement for many shared rows, whatever the order of its arguments.
func TestWritersOfTheLedgerDoNotDeadlock(t *testing.T) {
	t.Parallel()
	const subscriptions, positions, rounds = 16, 20, 8
	db := pgtest.New(t)
	ids := make([]subscription.ID, subscriptions)
	for i := range ids {
		ids[i] = subscription.NewID()
	}
	if _, err := db.ExecContext(t.Context(), `INSERT INTO posthorn.outbox (id, type, data) SELECT 'e' || n, 'E', '{}' FROM generate_series(1, $1) n`,
		positions*rounds); err != nil {
		t.Fatal(err)
	}
	conn, err := db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	})
	for round := range int64(rounds) {
		var (
			owed     []ledger.Owed
			attempts []ledger.Attempt
			claims   []ledger.Claim
		)
		for position := round*positions + 1; position <= (round+1)*positions; position++ {
			for _, id := range ids {
				owed = append(owed, ledger.Owed{Position: position, Subscription: id, EventID: "e", Cause: "live"})
				attempts = append(attempts, ledger.Attempt{
					Position: position, Subscription: id, EventID: "e", Number: 1, Cause: "live", StartedAt: time.Now(), Status: ledger.Delivered,
				})
				claims = append(claims, ledger.Claim{Position: position, Subscription: id, EventID: "e", Cause: "live", For: time.Second})
			}
		}
		for _, shuffle := range []func(i, j int){
			func(i, j int) { owed[i], owed[j] = owed[j], owed[i] },
			func(i, j int) { attempts[i], attempts[j] = attempts[j], attempts[i] },
			func(i, j int) { claims[i], claims[j] = claims[j], claims[i] },
		} {
			rand.Shuffle(len(owed), shuffle)
		}
		g, ctx := errgroup.WithContext(context.WithoutCancel(t.Context()))
		g.Go(func() error {
			return relay.Advance(ctx, conn, conn, relay.Progress{From: round * positions, Through: (round + 1) * positions, Owed: owed})
		})
		g.Go(func() error { return ledger.RecordAttempts(ctx, db, attempts[:len(attempts)/2]) })
		g.Go(func() error { return ledger.RecordAttempts(ctx, db, attempts[len(attempts)/2:]) })
		g.Go(func() error {
			_, err := ledger.ClaimAttempts(ctx, db, claims)
			return err
		})
		if err := g.Wait(); err != nil {
			t.Fatal(err)
		}
	}
}
