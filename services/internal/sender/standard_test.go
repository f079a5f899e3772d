package sender

import (
	"io"
	"net/http"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"posthorn/events/webhook"
)

// The standard's own library must accept our requests, and we its signatures.

func TestTheStandardsLibraryVerifiesWhatSendSends(t *testing.T) {
	t.Parallel()
	older, newer := webhook.NewSecret(), webhook.NewSecret()
	errs := make(chan error, 2)
	url := serve(t, func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		for _, secret := range []webhook.Secret{older, newer} {
			receiver, err := standardwebhooks.NewWebhook(secret.Reveal())
			if err == nil {
				err = receiver.Verify(body, r.Header)
			}
			errs <- err
		}
	})
	r := newRequestTo(url)
	r.Body, r.Secrets = []byte(`{"n":1.0, "text":"ü"}`), []webhook.Secret{newer, older}
	wantClass(t, newSender(t, Config{}).Send(t.Context(), r), ClassOK, "")
	for range 2 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
}

func TestWeVerifyWhatTheStandardsLibrarySigns(t *testing.T) {
	t.Parallel()
	secret, body, now := webhook.NewSecret(), []byte(`{"n":1.0, "text":"ü"}`), time.Now()
	sender, err := standardwebhooks.NewWebhook(secret.Reveal())
	if err != nil {
		t.Fatal(err)
	}
	signature, err := sender.Sign("evt_1", now, body)
	if err != nil {
		t.Fatal(err)
	}
	header := http.Header{}
	header.Set(webhook.HeaderID, "evt_1")
	header.Set(webhook.HeaderTimestamp, webhook.Timestamp(now))
	header.Set(webhook.HeaderSignature, signature)
	if err := webhook.Verify(header, body, time.Minute, secret); err != nil {
		t.Error(err)
	}
	if ours := webhook.Sign("evt_1", now, body, secret); ours != signature {
		t.Errorf("we sign %q, the library %q", ours, signature)
	}
}
