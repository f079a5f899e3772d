package sender

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"posthorn/events/webhook"
)

// BenchmarkPost compares an attempt with net/http's simplest POST, against the
// same server in the same process.
func BenchmarkPost(b *testing.B) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(w, "ok")
	}))
	defer server.Close()
	body := bytes.Repeat([]byte("a"), 512)

	b.Run("plain net/http", func(b *testing.B) {
		client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 512}}
		b.ReportAllocs()
		b.SetParallelism(32)
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				response, err := client.Post(server.URL, "application/json", bytes.NewReader(body)) //nolint:noctx // the simplest
				if err != nil {
					b.Error(err)
					return
				}
				_, _ = io.Copy(io.Discard, response.Body)
				_ = response.Body.Close()
			}
		})
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "posts/s")
	})
	b.Run("sender", func(b *testing.B) {
		s := New(Config{AllowNetworks: loopback()})
		defer s.Close()
		secrets := []webhook.Secret{webhook.NewSecret()}
		b.ReportAllocs()
		b.SetParallelism(32)
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				got := s.Send(b.Context(), Request{URL: server.URL, Body: body, ID: "evt_1", Secrets: secrets})
				if !got.OK() {
					b.Error(got.Error)
					return
				}
			}
		})
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "posts/s")
	})
}
