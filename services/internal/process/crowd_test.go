package process

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"testing"
	"time"
)

// crowded serves a handler on at most limit connections, and returns a dialer.
func crowded(t *testing.T, limit int, handler http.Handler) func() net.Conn {
	t.Helper()
	l, err := Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- serve(newCrowd(l, limit), handler)(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return func() net.Conn {
		conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
			t.Fatal(err)
		}
		return conn
	}
}

func ask(t *testing.T, conn net.Conn) error {
	t.Helper()
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
		return err
	}
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, response.Body)
	return errors.Join(err, response.Body.Close())
}

// closed waits until the other side has closed a connection, or the deadline.
func closed(conn net.Conn) bool {
	_, err := conn.Read(make([]byte, 1))
	var timeout net.Error
	return err != nil && !(errors.As(err, &timeout) && timeout.Timeout())
}

func TestConnectionsThatNobodyUsesMakeRoom(t *testing.T) {
	t.Parallel()
	dial := crowded(t, 8, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") }))
	var unused []net.Conn
	for n := range 100 {
		conn := dial()
		switch n % 3 {
		case 1: // one that sends its request slowly
			if _, err := io.WriteString(conn, "GET / HT"); err != nil {
				t.Fatal(err)
			}
		case 2: // one that was used
			if err := ask(t, conn); err != nil {
				t.Fatalf("connection %d: %v", n, err)
			}
		}
		unused = append(unused, conn)
	}
	last := dial()
	for range 3 {
		if err := ask(t, last); err != nil {
			t.Fatalf("among 100 that are not used: %v", err)
		}
	}
	// The exact number left may differ by one: the server may learn of the end of a request after
	// the client.
	ends := make(chan bool, len(unused))
	for _, conn := range unused {
		go func() { ends <- closed(conn) }()
	}
	for n := range 101 - 8 {
		if !<-ends {
			t.Fatalf("%d of 101 connections were closed, with room for 8", n)
		}
	}
	if err := ask(t, last); err != nil {
		t.Errorf("the connection that was used last: %v", err)
	}
}

func TestAConnectionThatIsServedStays(t *testing.T) {
	t.Parallel()
	entered, release := make(chan struct{}, 8), make(chan struct{})
	dial := crowded(t, 4, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		entered <- struct{}{}
		select {
		case <-release:
		case <-r.Context().Done():
		}
		_, _ = io.WriteString(w, "ok")
	}))
	answers := make(chan error, 5)
	for range 4 {
		conn := dial()
		go func() { answers <- ask(t, conn) }()
		<-entered
	}
	// The fifth waits until one of them is done, and closes none.
	fifth := dial()
	go func() { answers <- ask(t, fifth) }()
	select {
	case err := <-answers:
		t.Fatalf("an answer while all are served: %v", err)
	case <-entered:
		t.Fatal("five are served, with room for four")
	default:
	}
	close(release)
	for range 5 {
		if err := <-answers; err != nil {
			t.Error(err)
		}
	}
}

func TestAListenerHasAShareOfTheFiles(t *testing.T) {
	t.Parallel()
	many, few := capacity(ForMany), capacity(ForFew)
	files, known := FileLimit()
	if !known || many < few || few < leastConnections || uint64(many) > max(files/4, leastConnections) {
		t.Errorf("of %d files (known: %t) %d and %d", files, known, many, few)
	}
}
