package api

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/danielgtaylor/huma/v2"

	"posthorn/events"
	"posthorn/outbox"
	"posthorn/services/internal/eventlog"
	"posthorn/services/internal/operate"
	"posthorn/services/internal/postgres"
	"posthorn/services/internal/signing"
)

// appending mounts the same route twice: as a plain handler, and declared
// through huma.
type appending struct{}

func (appending) Run(context.Context) error { return nil }

func (appending) Mount(h *Host) {
	event := func(subject string) events.Event { return events.Event{Type: "LIKED_PHOTO", Subject: subject} }
	h.Handle(&huma.Operation{OperationID: "plain", Method: http.MethodPost, Path: "/plain/{subject}"}, func(w http.ResponseWriter, r *http.Request) error {
		result, err := h.Append(r.Context(), event(r.PathValue("subject")))
		if err == nil {
			h.Accept(w, result)
		}
		return err
	})
	Register(h, huma.Operation{OperationID: "huma", Method: http.MethodPost, Path: "/huma/{subject}", DefaultStatus: http.StatusAccepted},
		func(ctx context.Context, in *struct {
			Subject string `path:"subject" maxLength:"256"`
		},
		) (*struct {
			Location string `header:"Location"`
			Body     outbox.Result
		}, error,
		) {
			result, err := h.Append(ctx, event(in.Subject))
			if err != nil {
				return nil, err
			}
			return &struct {
				Location string `header:"Location"`
				Body     outbox.Result
			}{"/events/" + result.ID, result}, nil
		})
}

// BenchmarkHandler measures the API's own part of a request that appends, with
// nothing to commit.
func BenchmarkHandler(b *testing.B) {
	keys, err := signing.ParseKeyring(signing.GenerateKey())
	if err != nil {
		b.Fatal(err)
	}
	db, err := postgres.Open("postgres://nobody@127.0.0.1:1/none", "bench", 1) // is never connected to
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	a, err := New(Config{Operations: operate.New(db, keys), Products: []Product{appending{}}})
	if err != nil {
		b.Fatal(err)
	}
	a.plain = newGroup(a, "plain", func(_ context.Context, items []events.Event) ([]eventlog.Appended, error) {
		return make([]eventlog.Appended, len(items)), nil
	})
	ctx, stop := context.WithCancel(b.Context())
	defer stop()
	go func() { _ = a.Run(ctx) }()
	for _, name := range []string{"plain", "huma"} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				w := httptest.NewRecorder()
				a.ServeHTTP(w, httptest.NewRequestWithContext(ctx, http.MethodPost, "/"+name+"/1", nil))
				if w.Code != http.StatusAccepted {
					b.Fatalf("%d %s", w.Code, w.Body)
				}
			}
		})
	}
}
