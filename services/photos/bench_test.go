package photos_test

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

	"posthorn/migrations/pgtest"
	"posthorn/outbox"
	"posthorn/services/api"
	"posthorn/services/internal/operate"
	"posthorn/services/internal/postgres"
	"posthorn/services/internal/signing"
	"posthorn/services/photos"
)

// BenchmarkLike compares, in one run, /like with 64 connections: as it is,
// declared through huma, and with nothing to commit; and the same server's
// single-row commits with 16 connections.
//
//	go test -run '^$' -bench Like -benchtime 3s ./photos
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
	a, err := api.New(api.Config{Operations: operate.New(db, keys), Products: []api.Product{photos.New(db), humaLike{}}})
	if err != nil {
		b.Fatal(err)
	}
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

// humaLike is /like declared through huma.
type humaLike struct{}

func (humaLike) Run(context.Context) error { return nil }

func (humaLike) Mount(h *api.Host) {
	api.Register(h, huma.Operation{OperationID: "huma-like", Method: http.MethodPost, Path: "/huma/{photoId}", DefaultStatus: http.StatusAccepted},
		func(ctx context.Context, in *struct {
			PhotoID string `path:"photoId" maxLength:"256"`
			UserID  string `query:"userId" maxLength:"256"`
		},
		) (*struct{ Body outbox.Result }, error,
		) {
			e, err := photos.LikeEvent(photos.LikedPhoto, in.PhotoID, "", nil)
			if err != nil {
				return nil, err
			}
			r, err := h.Append(ctx, e)
			if err != nil {
				return nil, err
			}
			return &struct{ Body outbox.Result }{r}, nil
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

// readAccepted reads a response as cheaply as possible: the client shares the
// machine with the measured server.
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
