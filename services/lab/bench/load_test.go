package bench

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestLatencyCountsFromWhenARequestWasDue(t *testing.T) {
	t.Parallel()
	// One connection, and a server that stalls for a moment: requests due in
	// the meantime waited, although each one by itself was fast.
	var n atomic.Int64
	const length = 300 * time.Millisecond
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		if n.Add(1) == 1 {
			<-time.After(length)
		}
	}))
	defer server.Close()
	out, err := Load{Addr: strings.TrimPrefix(server.URL, "http://"), Path: "/", Connections: 1, Requests: 100, Rate: 1000}.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if out.Latency.Total != 100 {
		t.Fatalf("%d requests, want 100", out.Latency.Total)
	}
	// The hundredth was due after 99 ms and could not begin before 300 ms.
	if got := out.Latency.Quantile(0.01); got < length-100*time.Millisecond {
		t.Errorf("the least latency is %v, want %v at least", got, length-100*time.Millisecond)
	}
}

func TestPauseUntilWaitsForATimeToCome(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		due := time.Now().Add(time.Second)
		if err := pauseUntil(t.Context(), due); err != nil {
			t.Fatal(err)
		}
		if got := time.Since(due); got != 0 {
			t.Errorf("woke %v after the time", got)
		}
	})
}

func TestALoadFailsWhereARequestIsRefused(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "not today", http.StatusServiceUnavailable)
	}))
	defer server.Close()
	_, err := Load{Addr: strings.TrimPrefix(server.URL, "http://"), Path: "/", Connections: 2, Requests: 10}.Run(t.Context())
	if !errors.Is(err, errAnswer) || !strings.Contains(err.Error(), "503") || !strings.Contains(err.Error(), "not today") {
		t.Errorf("got %v", err)
	}
}

func TestATimedLoadEndsInTime(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.(http.Flusher).Flush() // a chunked response
		_, _ = w.Write([]byte("text"))
	}))
	defer server.Close()
	out, err := Load{
		Addr: strings.TrimPrefix(server.URL, "http://"), Path: "/", Connections: 2, Requests: unbounded, For: 50 * time.Millisecond,
	}.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if out.Latency.Total == 0 || out.FirstAnswer.Before(out.Begun) {
		t.Errorf("%d requests, the first answered %v after the beginning", out.Latency.Total, out.FirstAnswer.Sub(out.Begun))
	}
}
