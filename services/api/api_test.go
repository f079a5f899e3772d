package api_test

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"posthorn/migrations/pgtest"
	"posthorn/services/api"
	"posthorn/services/internal/operate"
	"posthorn/services/internal/postgres"
	"posthorn/services/internal/signing"
	"posthorn/services/photos"
)

// server is an API with its own database.
type server struct {
	t    testing.TB
	db   *sql.DB
	keys *signing.Keyring
	cfg  api.Config
	api  *api.API
	http *httptest.Server
}

func newServer(t testing.TB, change ...func(*api.Config)) *server {
	t.Helper()
	return newServerOn(t, pgtest.URL(t), change...)
}

func newServerOn(t testing.TB, url string, change ...func(*api.Config)) *server {
	t.Helper()
	db, err := postgres.Open(url, "api-test", 16)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	keys, err := signing.ParseKeyring(signing.GenerateKey())
	if err != nil {
		t.Fatal(err)
	}
	return newServerWith(t, db, keys, change...)
}

// newServerWith returns an API on a database that another API may use too.
func newServerWith(t testing.TB, db *sql.DB, keys *signing.Keyring, change ...func(*api.Config)) *server {
	t.Helper()
	cfg := api.Config{
		Operations: operate.New(db, keys), Products: []api.Product{photos.New(db)},
		Logger: slog.New(slog.NewTextHandler(testLog{t}, nil)),
	}
	for _, f := range change {
		f(&cfg)
	}
	a, err := api.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background()) //nolint:usetesting // outlives the test's context in order to drain
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	s := httptest.NewServer(a)
	t.Cleanup(func() {
		s.Close()
		stop()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	return &server{t: t, db: db, keys: keys, cfg: cfg, api: a, http: s}
}

type testLog struct{ t testing.TB }

func (l testLog) Write(b []byte) (int, error) {
	l.t.Log(strings.TrimSpace(string(b)))
	return len(b), nil
}

// reply is a response that has been read.
type reply struct {
	t      testing.TB
	Status int
	Header http.Header
	Body   []byte
}

func (s *server) do(method, path, body string, headers ...string) reply {
	s.t.Helper()
	var reader io.Reader
	if body != "" {
		reader = strings.NewReader(body)
	}
	req, err := http.NewRequestWithContext(s.t.Context(), method, s.http.URL+path, reader)
	if err != nil {
		s.t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(headers); i += 2 {
		if headers[i] == "Host" {
			req.Host = headers[i+1]
		}
		if headers[i+1] == "" {
			req.Header.Del(headers[i])
		} else {
			req.Header.Set(headers[i], headers[i+1])
		}
	}
	res, err := s.http.Client().Do(req)
	if err != nil {
		s.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		s.t.Fatalf("%s %s: %v", method, path, err)
	}
	return reply{t: s.t, Status: res.StatusCode, Header: res.Header, Body: b}
}

// want fails the test unless the reply has the status; problems must be complete.
func (r reply) want(status int) reply {
	r.t.Helper()
	if r.Status != status {
		r.t.Fatalf("got %d %s, want %d", r.Status, r.Body, status)
	}
	if status >= 400 && len(r.Body) > 0 && r.Header.Get("Content-Type") != "application/problem+json" {
		r.t.Fatalf("%d with content type %q: %s", r.Status, r.Header.Get("Content-Type"), r.Body)
	}
	return r
}

type problemBody struct {
	Type, Title, Detail string
	Status              int
	Errors              []struct{ Location, Field, Message string }
}

// names fails the test unless the problem names the field.
func (r reply) names(field string) {
	r.t.Helper()
	var p problemBody
	r.decode(&p)
	if p.Type == "" || p.Title == "" || p.Status != r.Status {
		r.t.Errorf("problem is incomplete: %s", r.Body)
	}
	for _, e := range p.Errors {
		if e.Field == field && e.Message != "" {
			return
		}
	}
	r.t.Errorf("problem does not name %q: %s", field, r.Body)
}

func (r reply) decode(into any) {
	r.t.Helper()
	d := json.NewDecoder(bytes.NewReader(r.Body))
	if err := d.Decode(into); err != nil {
		r.t.Fatalf("decode %s: %v", r.Body, err)
	}
}

type acceptedEvent struct {
	ID, Type, Subject string
	Position          int64
	Duplicate         bool
}

func (r reply) event() acceptedEvent {
	r.t.Helper()
	var e acceptedEvent
	r.decode(&e)
	return e
}

func (s *server) count(query string, args ...any) int64 {
	s.t.Helper()
	var n int64
	if err := s.db.QueryRowContext(s.t.Context(), query, args...).Scan(&n); err != nil {
		s.t.Fatal(err)
	}
	return n
}

func (s *server) events() int64 {
	s.t.Helper()
	return s.count(`SELECT count(*) FROM posthorn.outbox WHERE kind = 'event'`)
}

type subscriptionBody struct {
	ID, URL, Description, Status, Timeout, Secret string
	EventTypes                                    []string
	Retry                                         struct{ Schedule []string }
	MaxInFlight, Version                          int
}

func (s *server) subscribe(body string) subscriptionBody {
	s.t.Helper()
	var sub subscriptionBody
	s.do("POST", "/subscription", body).want(201).decode(&sub)
	return sub
}

const hook = `{"url":"https://example.com/hook","eventTypes":["LIKED_PHOTO"]}`
