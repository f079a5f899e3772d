package secrets_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"posthorn/events/webhook"
	"posthorn/migrations/pgtest"
	"posthorn/services/internal/idempotency"
	"posthorn/services/internal/secrets"
	"posthorn/services/internal/signing"
	"posthorn/services/internal/subscription"
)

func ring(t *testing.T, keys string) *signing.Keyring {
	t.Helper()
	r, err := signing.ParseKeyring(keys)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// errStopped stands for a kill between two batches.
var errStopped = errors.New("stopped")

func TestResealingIsInterruptedAndKeepsWhatIsChangedMeanwhile(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	const n = 1203
	former, next := signing.GenerateKey(), signing.GenerateKey()
	old, both, alone := ring(t, former), ring(t, next+","+former), ring(t, next)
	secret := webhook.NewSecret()
	var ids []subscription.ID
	for i := range n {
		s := subscription.Subscription{
			ID: subscription.NewID(), Account: "default", URL: "http://a.example/", Status: subscription.Active, Timeout: time.Second, MaxInFlight: 1, Secret: secret,
		}
		s.EventTypes = append(s.EventTypes, "E")
		if i%3 == 0 {
			s.PreviousSecret, s.PreviousSecretUntil = secret, time.Now().Add(time.Hour)
		}
		s.Seal(old)
		created, err := subscription.Create(t.Context(), db, s)
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, created.ID)
	}
	request := idempotency.Request{Account: "default", Key: "k", Fingerprint: []byte("f")}
	if _, _, err := idempotency.Once(t.Context(), db, request, func(context.Context) (idempotency.Answer, error) {
		return idempotency.Answer{Status: 201, Sealed: old.Seal([]byte("answer"), request.AssociatedData())}, nil
	}); err != nil {
		t.Fatal(err)
	}

	// Stopped after its first batch.
	ctx, stop := context.WithCancelCause(t.Context())
	if _, err := secrets.Reseal(ctx, db, both, func(secrets.Resealed) { stop(errStopped) }); err == nil {
		t.Fatal("it was not stopped")
	}
	// A rotation between two batches is kept.
	rotated := webhook.NewSecret()
	last := ids[n-1]
	if _, err := subscription.Update(t.Context(), db, "default", last, func(s *subscription.Subscription) error {
		s.Secret, s.PreviousSecret = rotated, webhook.Secret{}
		s.Seal(both)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	done, err := secrets.Reseal(t.Context(), db, both, func(secrets.Resealed) {})
	if err != nil || done.Unopened != 0 || done.Resealed != n-500-1+1 { // all except the first batch and the rotated one, and the stored response
		t.Fatalf("resealed %+v, %v", done, err)
	}
	for _, id := range ids {
		s, err := subscription.ByID(t.Context(), db, id)
		if err == nil {
			err = s.Open(alone)
		}
		want := secret
		if id == last {
			want = rotated
		}
		if err != nil || !s.Secret.Equal(want) {
			t.Fatalf("%s: %v", id, err)
		}
	}
	seals, err := secrets.Seals(t.Context(), db)
	if err != nil || len(seals) != 1 || seals[0].KeyID != alone.KeyID() || seals[0].Secrets != n+n/3 || seals[0].Answers != 1 {
		t.Errorf("seals %+v, %v", seals, err)
	}
	if again, err := secrets.Reseal(t.Context(), db, both, func(secrets.Resealed) {}); err != nil || again.Resealed != 0 {
		t.Errorf("once more: %+v, %v", again, err)
	}
	// Without the key nothing is changed.
	if lost, err := secrets.Reseal(t.Context(), db, ring(t, signing.GenerateKey()), func(secrets.Resealed) {}); err != nil || lost.Resealed != 0 || lost.Unopened != n+1 {
		t.Errorf("with another key: %+v, %v", lost, err)
	}
}
