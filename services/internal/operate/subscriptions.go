package operate

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"posthorn/events"
	"posthorn/events/webhook"
	"posthorn/services/internal/account"
	"posthorn/services/internal/eventlog"
	"posthorn/services/internal/postgres"
	"posthorn/services/internal/replay"
	"posthorn/services/internal/subscription"
)

// StateError is returned if the current state does not allow an operation. Its
// text can be shown to the caller.
type StateError struct{ Message string }

func (e StateError) Error() string { return e.Message }

// Unwrap makes it a postgres.ErrState.
func (StateError) Unwrap() error { return postgres.ErrState }

// Subscription returns one of the actor's subscriptions that is not deleted.
func (o *Operations) Subscription(ctx context.Context, by account.Actor, id subscription.ID) (subscription.Subscription, error) {
	return subscription.OfAccount(ctx, o.db, by.Account, id)
}

// Subscriptions returns a page of the actor's subscriptions, oldest first.
func (o *Operations) Subscriptions(ctx context.Context, by account.Actor, f subscription.Filter) (postgres.Page[subscription.Subscription], error) {
	f.Account = by.Account
	return subscription.List(ctx, o.db, f)
}

// Subscribe creates a subscription of the actor's account, with its secret sealed. With a place it
// also gets past events: a replay of the events that it matches from there up to its own record,
// where the live stream begins.
func (o *Operations) Subscribe(ctx context.Context, by account.Actor, s subscription.Subscription, from eventlog.Place) (created subscription.Subscription, err error) {
	s.ID, s.Account = subscription.NewID(), by.Account
	s.Seal(o.keys) // which binds it to the id
	err = postgres.CommitTx(ctx, o.db, func(tx *sql.Tx) (err error) {
		if created, err = subscription.CreateTx(ctx, tx, s); err != nil || from.IsZero() || from.Now {
			return err
		}
		// Events below the record are settled once the relay has reached it,
		// and the replay waits for that.
		return replay.PastTx(ctx, tx, created, from, created.Since-1)
	})
	return created, err
}

// ChangeSubscription changes settings of a subscription. Its secrets are sealed with the key that
// seals now. If they cannot be opened the change is still made, and unopened says why.
func (o *Operations) ChangeSubscription(ctx context.Context, by account.Actor, id subscription.ID,
	change func(*subscription.Subscription) error,
) (changed subscription.Subscription, unopened, err error) {
	changed, err = subscription.Update(ctx, o.db, by.Account, id, func(s *subscription.Subscription) error {
		if err := change(s); err != nil {
			return err
		}
		_, unopened = s.Reseal(o.keys)
		return nil
	})
	return changed, unopened, err
}

// SetStatus is a change of ChangeSubscription that pauses, resumes or disables.
func SetStatus(status subscription.Status) func(*subscription.Subscription) error {
	return func(s *subscription.Subscription) error {
		switch {
		case s.Status == status:
			return subscription.ErrUnchanged
		case status == subscription.Paused && s.Status == subscription.Disabled:
			return StateError{"The subscription is disabled, so it has no deliveries that could wait. Resume it first."}
		}
		s.Status = status
		return nil
	}
}

// RotateSecret is a change of ChangeSubscription that sets a new signing
// secret. The previous one also signs for subscription.SecretOverlap.
func (o *Operations) RotateSecret(secret webhook.Secret, now time.Time) func(*subscription.Subscription) error {
	return func(s *subscription.Subscription) error {
		if err := s.Open(o.keys); err != nil {
			return fmt.Errorf("%w (%w)", StateError{"The secret cannot be opened with the current POSTHORN_SECRET_KEY, and so could not stay " +
				"valid beside a new one. The key that sealed it has to be added again."}, err)
		}
		if s.Secret.Equal(secret) {
			return subscription.InvalidError{{Field: "secret", Message: "is the current one"}}
		}
		s.PreviousSecret, s.PreviousSecretUntil = s.Secret, now.Add(subscription.SecretOverlap)
		s.Secret = secret
		s.Seal(o.keys)
		return nil
	}
}

// SendTest appends an event that goes to one subscription only, which has to be
// active. Type and data default to those of a test event.
func (o *Operations) SendTest(ctx context.Context, by account.Actor, id subscription.ID, e events.Event) (events.Event, error) {
	if e.Type == "" {
		e.Type = "posthorn.test"
	}
	if len(e.Data) == 0 {
		e.Data = []byte(`{"test":true}`)
	}
	if err := e.Validate(); err != nil {
		return e, err //nolint:wrapcheck // it names the field
	}
	return subscription.AppendTest(ctx, o.db, by.Account, id, e, func(s subscription.Subscription) error {
		if s.Status != subscription.Active {
			return StateError{"The subscription is " + string(s.Status) + ", so nothing is sent to it: resume it first."}
		}
		return nil
	})
}
