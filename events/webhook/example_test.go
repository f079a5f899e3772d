package webhook_test

import (
	"errors"
	"io"
	"log/slog"
	"net/http"

	"posthorn/events/webhook"
)

// A receiver: read the body with a limit, verify, then decode.
func ExampleVerify() {
	secret, err := webhook.ParseSecret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
	if err != nil {
		panic(err)
	}
	http.HandleFunc("POST /my-album", func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20))
		if err != nil {
			http.Error(w, "body", http.StatusRequestEntityTooLarge)
			return
		}
		err = webhook.Verify(r.Header, body, webhook.DefaultTolerance, secret)
		switch {
		case errors.Is(err, webhook.ErrTooOld), errors.Is(err, webhook.ErrTooNew):
			slog.Warn("check this machine's clock", "error", err)
			fallthrough
		case err != nil:
			http.Error(w, "signature", http.StatusUnauthorized)
			return
		}
		// The webhook-id is the same on every attempt: remember it, and skip known ids.
		slog.Info("received", "id", r.Header.Get(webhook.HeaderID))
		w.WriteHeader(http.StatusNoContent)
	})
}
