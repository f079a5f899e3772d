package subscription_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"posthorn/events"
	"posthorn/events/webhook"
	"posthorn/services/internal/retry"
	"posthorn/services/internal/signing"
	"posthorn/services/internal/subscription"
)

func valid() subscription.Subscription {
	return subscription.Subscription{
		ID: subscription.NewID(), Account: "default", URL: "https://example.com/", EventTypes: []events.Pattern{"A", "b.#"},
		Status: subscription.Active, Timeout: subscription.DefaultTimeout, MaxInFlight: subscription.DefaultMaxInFlight,
	}
}

func TestValidateNamesEveryFieldThatIsWrong(t *testing.T) {
	t.Parallel()
	if err := valid().Validate(); err != nil {
		t.Fatal(err)
	}
	for field, spoil := range map[string]func(*subscription.Subscription){
		"url":            func(s *subscription.Subscription) { s.URL = "ftp://x" },
		"eventTypes":     func(s *subscription.Subscription) { s.EventTypes = nil },
		"eventTypes[1]":  func(s *subscription.Subscription) { s.EventTypes = []events.Pattern{"A", "a*"} },
		"description":    func(s *subscription.Subscription) { s.Description = strings.Repeat("x", 1025) },
		"status":         func(s *subscription.Subscription) { s.Status = subscription.Deleted },
		"retry.schedule": func(s *subscription.Subscription) { s.Schedule = retry.Schedule{time.Millisecond} },
		"timeout":        func(s *subscription.Subscription) { s.Timeout = time.Hour },
		"maxInFlight":    func(s *subscription.Subscription) { s.MaxInFlight = 0 },
	} {
		s := valid()
		spoil(&s)
		var invalid subscription.InvalidError
		if err := s.Validate(); !errors.As(err, &invalid) || len(invalid) != 1 || invalid[0].Field != field || invalid[0].Message == "" {
			t.Errorf("%s: got %v", field, err)
		}
	}
	var all subscription.InvalidError
	if err := (subscription.Subscription{}).Validate(); !errors.As(err, &all) || len(all) != 5 {
		t.Errorf("got %v", err)
	}
}

func TestSecretsAreBoundToTheirSubscription(t *testing.T) {
	t.Parallel()
	keys, err := signing.ParseKeyring(signing.GenerateKey())
	if err != nil {
		t.Fatal(err)
	}
	s := valid()
	s.Secret, s.PreviousSecret = webhook.NewSecret(), webhook.NewSecret()
	current, previous := s.Secret.Reveal(), s.PreviousSecret.Reveal()
	s.Seal(keys)
	if strings.Contains(fmt.Sprintf("%+v", s), current) {
		t.Error("the secret is printed")
	}
	stored := s
	stored.Secret, stored.PreviousSecret = webhook.Secret{}, webhook.Secret{}
	if err := stored.Open(keys); err != nil || stored.Secret.Reveal() != current || stored.PreviousSecret.Reveal() != previous {
		t.Errorf("opened %v", err)
	}
	stored.ID = subscription.NewID()
	if err := stored.Open(keys); err == nil {
		t.Error("a secret opened in another subscription")
	}
}

func TestThePreviousSecretSignsUntilItsTime(t *testing.T) {
	t.Parallel()
	now := time.Now()
	s := valid()
	s.Secret, s.PreviousSecret, s.PreviousSecretUntil = webhook.NewSecret(), webhook.NewSecret(), now
	if got := s.Secrets(now.Add(-time.Second)); len(got) != 2 || !got[0].Equal(s.Secret) || !got[1].Equal(s.PreviousSecret) {
		t.Errorf("got %d secrets before", len(got))
	}
	if got := s.Secrets(now); len(got) != 1 || !got[0].Equal(s.Secret) {
		t.Errorf("got %d secrets after", len(got))
	}
}

func TestARecordIsReadAsItWasWritten(t *testing.T) {
	t.Parallel()
	const golden = `{"id":"sub_01a20c87-0425-7ea1-9ec4-43d4855a3496","account":"default","eventTypes":["A","b.#"],"status":"paused","version":3}`
	r, err := subscription.ParseRecord([]byte(golden))
	if err != nil {
		t.Fatal(err)
	}
	if !r.Matches("b.c.d") || r.Matches("B") || !r.Status.Owed() || r.Version != 3 {
		t.Errorf("record %+v", r)
	}
	if data, err := r.Encode(); err != nil || string(data) != golden {
		t.Errorf("encoded %s, %v", data, err)
	}
	for _, bad := range []string{``, `{}`, `{"id":"sub_1","status":"active"}`, `{"id":"sub_01a20c87-0425-7ea1-9ec4-43d4855a3496","status":"x"}`} {
		if _, err := subscription.ParseRecord([]byte(bad)); err == nil {
			t.Errorf("%s was read", bad)
		}
	}
}
