package api

import (
	"bufio"
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/danielgtaylor/huma/v2"

	"posthorn/events"
	"posthorn/migrations/pgtest"
	"posthorn/services/internal/eventlog"
	"posthorn/services/internal/groupcommit"
	"posthorn/services/internal/operate"
	"posthorn/services/internal/photo"
	"posthorn/services/internal/postgres"
	"posthorn/services/internal/signing"
)

// BenchmarkLike compares, in one run, what /like does with 64 connections: as
// it is, declared through huma, and with nothing to commit; and beside them
// the same server's single-row commits with 16 connections.
//
//	go test -run '^$' -bench Like -benchtime 3s ./api
func BenchmarkLike(b *testing.B) {
	db, err := postgres.Open(pgtest.URL(b), "bench", 20)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	keys, err := signing.ParseKeyring(signing.GenerateKey())
	if err != nil {
		b.Fatal(err)
	}
	a, err := New(Config{Operations: operate.New(db, keys), DB: db})
	if err != nil {
		b.Fatal(err)
	}
	registerHumaLike(a)
	ctx, stop := context.WithCancel(b.Context())
	defer stop()
	go func() { _ = a.Run(ctx) }()
	s := httptest.NewServer(a)
	defer s.Close()

	b.Run("insert-16", func(b *testing.B) { benchInserts(b, db, 16) })
	b.Run("like-64", func(b *testing.B) { benchRequests(b, s, "/like/%d", "") })
	b.Run("like-user-64", func(b *testing.B) { benchRequests(b, s, "/like/%d?userId=u", "") })
	b.Run("event-64", func(b *testing.B) {
		benchRequests(b, s, "/events?%d", `{"type":"ORDER_PAID","subject":"order/7","data":{"amount":12.5,"currency":"EUR"}}`)
	})
	b.Run("like-huma-64", func(b *testing.B) { benchRequests(b, s, "/huma/%d", "") })
	b.Run("insert-16-again", func(b *testing.B) { benchInserts(b, db, 16) })
	b.Run("like-64-again", func(b *testing.B) { benchRequests(b, s, "/like/%d", "") })
	b.Run("like-huma-64-again", func(b *testing.B) { benchRequests(b, s, "/huma/%d", "") })
}

// registerHumaLike adds /like once more, declared through huma.
func registerHumaLike(a *API) {
	register(a, huma.Operation{OperationID: "huma-like", Method: http.MethodPost, Path: "/huma/{photoId}", DefaultStatus: http.StatusAccepted},
		func(ctx context.Context, in *struct {
			PhotoID string `path:"photoId" maxLength:"256"`
			UserID  string `query:"userId" maxLength:"256"`
		},
		) (*struct {
			Location string `header:"Location"`
			Body     AcceptedEvent
		}, error,
		) {
			e, err := photo.LikeEvent(photo.LikedPhoto, in.PhotoID, "", nil)
			if err != nil {
				return nil, err
			}
			r, err := a.appendOne(ctx, e)
			if err != nil {
				return nil, err
			}
			out := &struct {
				Location string `header:"Location"`
				Body     AcceptedEvent
			}{Location: "/events/" + r.ID}
			out.Body = AcceptedEvent{
				ID: r.ID, Type: r.Type, Subject: r.Subject, Position: r.Position, OccurredAt: r.OccurredAt, RecordedAt: r.RecordedAt,
			}
			return out, nil
		})
}

func benchInserts(b *testing.B, db *sql.DB, connections int) {
	b.Helper()
	statement, err := db.PrepareContext(b.Context(), `INSERT INTO posthorn.outbox (id, type, subject, data) VALUES ($1, 'LIKED_PHOTO', $2, $3)`)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = statement.Close() }()
	spread(b, connections, func(i int64) error {
		id := "bench_" + strconv.FormatInt(i, 10)
		_, err := statement.ExecContext(b.Context(), id, "photo/"+id, []byte(`{"photoId":"1"}`))
		return err
	})
}

func benchRequests(b *testing.B, s *httptest.Server, path, body string) {
	b.Helper()
	const connections = 64
	pool := make(chan *bufio.ReadWriter, connections)
	for range connections {
		conn, err := (&net.Dialer{}).DialContext(b.Context(), "tcp", s.Listener.Addr().String())
		if err != nil {
			b.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		pool <- bufio.NewReadWriter(bufio.NewReader(conn), bufio.NewWriter(conn))
	}
	spread(b, connections, func(i int64) error {
		c := <-pool
		defer func() { pool <- c }()
		_, err := fmt.Fprintf(c, "POST "+path+" HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", i, len(body), body)
		if err == nil {
			err = c.Flush()
		}
		if err != nil {
			return err
		}
		return readAccepted(c.Reader)
	})
}

// readAccepted reads a response as cheaply as can be: the client shares the
// machine with what is measured.
func readAccepted(r *bufio.Reader) error {
	length := 0
	for n := 0; ; n++ {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return err
		}
		if n == 0 && !bytes.HasPrefix(line, []byte("HTTP/1.1 202")) {
			return fmt.Errorf("answer %q", line)
		}
		if value, ok := bytes.CutPrefix(line, []byte("Content-Length: ")); ok {
			if length, err = strconv.Atoi(string(bytes.TrimSpace(value))); err != nil {
				return err
			}
		}
		if len(bytes.TrimSpace(line)) == 0 {
			_, err := io.CopyN(io.Discard, r, int64(length))
			return err
		}
	}
}

func spread(b *testing.B, workers int, do func(i int64) error) {
	b.Helper()
	var (
		wg   sync.WaitGroup
		next atomic.Int64
	)
	b.ResetTimer()
	for range workers {
		wg.Go(func() {
			for i := next.Add(1); i <= int64(b.N); i = next.Add(1) {
				if err := do(i); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "op/s")
}

// BenchmarkLikeHandler is the API's own part of a like, with nothing to
// commit.
func BenchmarkLikeHandler(b *testing.B) {
	keys, err := signing.ParseKeyring(signing.GenerateKey())
	if err != nil {
		b.Fatal(err)
	}
	db, err := postgres.Open("postgres://nobody@127.0.0.1:1/none", "bench", 1) // is never asked
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	a, err := New(Config{Operations: operate.New(db, keys), DB: db})
	if err != nil {
		b.Fatal(err)
	}
	a.plain = groupcommit.New(groupcommit.Config{}, func(_ context.Context, items []events.Event) ([]eventlog.Appended, error) {
		return make([]eventlog.Appended, len(items)), nil
	})
	registerHumaLike(a)
	ctx, stop := context.WithCancel(b.Context())
	defer stop()
	go func() { _ = a.Run(ctx) }()
	for name, path := range map[string]string{"plain": "/like/1", "huma": "/huma/1"} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				w := httptest.NewRecorder()
				a.ServeHTTP(w, httptest.NewRequestWithContext(ctx, http.MethodPost, path, nil))
				if w.Code != http.StatusAccepted {
					b.Fatalf("%d %s", w.Code, w.Body)
				}
			}
		})
	}
}
