package delivery

import (
	"testing"
	"time"

	"posthorn/events"
	"posthorn/services/internal/envelope"
	"posthorn/services/internal/subscription"
)

func TestWhoWantsALiveMessage(t *testing.T) {
	t.Parallel()
	sub := &subscription.Subscription{Account: "default", EventTypes: []events.Pattern{"photo.*", "LIKED_PHOTO"}}
	for _, c := range []struct {
		account, eventType string
		want               bool
	}{
		{"", "photo.liked", true},
		{"default", "LIKED_PHOTO", true},
		{"acme", "LIKED_PHOTO", false},
		{"", "photo.liked.twice", false},
		{"", "order.paid", false},
		{"", "", true}, // addressed to the subscription
	} {
		if got := wanted(sub, envelope.Envelope{Account: c.account, Type: c.eventType}); got != c.want {
			t.Errorf("account %q, type %q: wanted %v", c.account, c.eventType, got)
		}
	}
}

func TestOnlySomeForeignMessagesAreParked(t *testing.T) {
	t.Parallel()
	var p parking
	now := time.Now()
	parked := 0
	for range 10 * parkedAtMost {
		if p.take(now) {
			parked++
		}
	}
	if parked != parkedAtMost || !p.take(now.Add(parkedWithin+time.Second)) {
		t.Errorf("%d of %d are parked", parked, 10*parkedAtMost)
	}
}

func TestDifferentKeysAreDistinguishedFromForgeries(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_700_000_000, 0)
	for name, c := range map[string]struct {
		right, wrong time.Duration // before now; 0 for never
		trouble      bool
	}{
		"no message":                     {0, 0, false},
		"all verify":                     {time.Second, 0, false},
		"none verifies":                  {0, time.Second, true},
		"some are forged":                {2 * time.Second, time.Second, false},
		"none has for long":              {time.Hour, time.Second, true},
		"one was forged some time ago":   {0, time.Hour, false},
		"keys differed, then were fixed": {time.Second, 30 * time.Second, false},
		"a forgery in an idle system":    {50 * time.Second, time.Second, false},
	} {
		var s signatures
		if c.right > 0 {
			s.right.Store(now.Add(-c.right).Unix())
		}
		if c.wrong > 0 {
			s.wrong.Store(now.Add(-c.wrong).Unix())
		}
		if err := s.err(now); (err != nil) != c.trouble {
			t.Errorf("%s: %v", name, err)
		}
	}
}
