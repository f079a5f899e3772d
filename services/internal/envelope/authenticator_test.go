package envelope_test

import (
	"bytes"
	"errors"
	"maps"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"posthorn/services/internal/envelope"
	"posthorn/services/internal/ledger"
)

func key(b byte) []byte { return bytes.Repeat([]byte{b}, 32) }

func content() envelope.Content {
	return envelope.Content{Subscription: "sub_1", ID: "evt_1", ContentType: "application/json", Body: []byte(`{"id":"evt_1"}`)}
}

func full() envelope.Envelope {
	return envelope.Envelope{
		Position: 7, Run: 2, Attempts: 3, Cause: ledger.CauseReplay, Wait: time.Minute, PublishedAt: time.UnixMilli(1700000000123),
		Suspect: true, TraceParent: "00-a-b-01", TraceState: "x=y",
	}
}

func live() envelope.Envelope {
	return envelope.Envelope{Position: 7, Cause: ledger.CauseLive, PublishedAt: time.UnixMilli(1700000000123), Type: "photo.liked", Account: "acme"}
}

func TestASignedMessageOpens(t *testing.T) {
	t.Parallel()
	a := envelope.NewAuthenticator([][]byte{key(1)})
	for _, e := range []envelope.Envelope{full(), live()} {
		got, err := a.Open(a.Headers(e, content()), content())
		if diff := cmp.Diff(e, got); err != nil || diff != "" {
			t.Errorf("Open: %v, envelope (-signed +opened):\n%s", err, diff)
		}
	}
	// A message for all subscriptions to the type is for each of them.
	other := content()
	other.Subscription = "sub_2"
	if _, err := a.Open(a.Headers(live(), content()), other); err != nil {
		t.Errorf("a live message for another subscription: %v", err)
	}
}

func TestEveryChangeIsRefused(t *testing.T) {
	t.Parallel()
	a := envelope.NewAuthenticator([][]byte{key(1)})
	for _, e := range []envelope.Envelope{full(), live()} {
		signed := a.Headers(e, content())
		for name := range signed {
			for _, value := range []string{"", "1", signed[name] + "0", "true", "live", "redrive", "photo.shared"} {
				changed := maps.Clone(signed)
				if changed[name] = value; name == "posthorn-mac" {
					changed[name] = "_" + signed[name][1:] // additional signatures are ignored
				}
				if value == "" {
					delete(changed, name)
				}
				if got, err := a.Open(changed, content()); value != signed[name] && err == nil {
					t.Errorf("opened with %s = %q: %+v", name, value, got)
				}
			}
		}
		for _, added := range []string{
			"posthorn-run", "posthorn-attempts", "posthorn-wait-ms", "posthorn-suspect", "posthorn-type", "posthorn-account",
			"traceparent", "tracestate",
		} {
			changed := maps.Clone(signed)
			changed[added] = "9"
			if added == "posthorn-suspect" {
				changed[added] = "true"
			}
			// An account has no meaning without a type.
			if _, err := a.Open(changed, content()); err == nil && signed[added] != changed[added] && (added != "posthorn-account" || e.Type != "") {
				t.Errorf("opened with %s added", added)
			}
		}
		for name, change := range map[string]func(*envelope.Content){
			"id":           func(c *envelope.Content) { c.ID = "evt_2" },
			"content type": func(c *envelope.Content) { c.ContentType = "text/plain" },
			"body":         func(c *envelope.Content) { c.Body = []byte(`{"id":"evt_1" }`) },
			"no body":      func(c *envelope.Content) { c.Body = nil },
			"subscription": func(c *envelope.Content) { c.Subscription = "sub_2" },
		} {
			c := content()
			change(&c)
			if _, err := a.Open(signed, c); !errors.Is(err, envelope.ErrUnverified) && (name != "subscription" || e.Type == "") {
				t.Errorf("%s changed: %v", name, err)
			}
		}
	}
}

func TestAdjacentTextsAreSignedUnambiguously(t *testing.T) {
	t.Parallel()
	a := envelope.NewAuthenticator([][]byte{key(1)})
	one, other := live(), live()
	one.Account, one.Type = "ab", "c"
	other.Account, other.Type = "a", "bc"
	headers := a.Headers(other, content())
	headers["posthorn-mac"] = a.Headers(one, content())["posthorn-mac"]
	if _, err := a.Open(headers, content()); !errors.Is(err, envelope.ErrUnverified) {
		t.Errorf("Open = %v", err)
	}
}

func TestAnUnsignedMessageIsDistinguishedFromAForgedOne(t *testing.T) {
	t.Parallel()
	a := envelope.NewAuthenticator([][]byte{key(1)})
	if _, err := a.Open(full().Headers(), content()); !errors.Is(err, envelope.ErrUnsigned) || !errors.Is(err, envelope.ErrUnverified) {
		t.Errorf("unsigned: %v", err)
	}
	forged := full().Headers()
	forged["posthorn-mac"] = strings.Repeat("A", 43)
	if _, err := a.Open(forged, content()); !errors.Is(err, envelope.ErrUnverified) || errors.Is(err, envelope.ErrUnsigned) {
		t.Errorf("forged: %v", err)
	}
	if _, err := a.Open(map[string]string{"n": "1"}, content()); !errors.Is(err, envelope.ErrForeign) {
		t.Errorf("foreign: %v", err)
	}
}

// Relays and delivery services are restarted one after the other.
func TestKeysOfMessagesRotate(t *testing.T) {
	t.Parallel()
	before := envelope.NewAuthenticator([][]byte{key(1)})
	during := envelope.NewAuthenticator([][]byte{key(2), key(1)})
	after := envelope.NewAuthenticator([][]byte{key(2)})
	for name, c := range map[string]struct {
		from, to *envelope.Authenticator
		ok       bool
	}{
		"before to during": {before, during, true}, "during to during": {during, during, true}, "during to after": {during, after, true},
		"before to after": {before, after, false}, "during to before": {during, before, true}, "after to before": {after, before, false},
	} {
		if _, err := c.to.Open(c.from.Headers(full(), content()), content()); (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Messages outlive releases. The value was computed with another
// implementation (Python's hmac).
func TestTheSignatureIsStable(t *testing.T) {
	t.Parallel()
	a := envelope.NewAuthenticator([][]byte{key(1)})
	for want, e := range map[string]envelope.Envelope{"LkRbqCUjx3JEP3fldP074CwQhWTMUXYyIOMzvoJMPkQ": full(), "Qb0WTKu4SbKrHsGkojqeCzFvsWeh8TQfje7b67hii6E": live()} {
		if got := a.Headers(e, content())["posthorn-mac"]; got != want {
			t.Errorf("signature %s, want %s", got, want)
		}
	}
}

func TestAnAuthenticatorIsSafeForConcurrentUse(t *testing.T) {
	t.Parallel()
	a := envelope.NewAuthenticator([][]byte{key(1), key(2)})
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for n := range 200 {
				e := full()
				e.Position = int64(1000*i + n + 1)
				if got, err := a.Open(a.Headers(e, content()), content()); err != nil || got.Position != e.Position {
					t.Errorf("Open = %+v, %v", got, err)
				}
			}
		})
	}
	wg.Wait()
}

func BenchmarkAuthenticator(b *testing.B) {
	a := envelope.NewAuthenticator([][]byte{key(1)})
	c := content()
	c.Body = bytes.Repeat([]byte("a"), 500)
	headers := a.Headers(live(), c)
	b.Run("headers alone", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			live().Headers()
		}
	})
	b.Run("sign", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			a.Headers(live(), c)
		}
	})
	b.Run("parse alone", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_, _ = envelope.Parse(headers)
		}
	})
	b.Run("verify", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_, _ = a.Open(headers, c)
		}
	})
}
