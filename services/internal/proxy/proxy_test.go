package proxy_test

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"

	"posthorn/services/internal/proxy"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// echo is a proxy to an echo server.
func echo(t *testing.T) *proxy.Proxy {
	t.Helper()
	server, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	go func() {
		for {
			c, err := server.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(c, c)
				_ = c.Close()
			}()
		}
	}()
	l, err := proxy.New(t.Context(), server.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l
}

func dial(t *testing.T, l *proxy.Proxy) net.Conn {
	t.Helper()
	c, err := new(net.Dialer).DialContext(t.Context(), "tcp", l.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// ask sends text and returns how long its echo took, or an error if there is
// none in time.
func ask(t *testing.T, c net.Conn, within time.Duration) (time.Duration, error) {
	t.Helper()
	started := time.Now()
	if err := c.SetDeadline(started.Add(within)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(c, "hello\n"); err != nil {
		return 0, err
	}
	text, err := bufio.NewReader(c).ReadString('\n')
	if err == nil && text != "hello\n" {
		t.Errorf("echo %q", text)
	}
	return time.Since(started), err
}

func TestALinePassesOnWhatComes(t *testing.T) {
	t.Parallel()
	c := dial(t, echo(t))
	sent := make([]byte, 3<<20)
	_, _ = rand.Read(sent) // never fails
	go func() { _, _ = c.Write(sent) }()
	got := make([]byte, len(sent))
	if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, sent) {
		t.Errorf("what came back differs (%v)", err)
	}
}

func TestACutLineEndsConnectionsAndTakesNone(t *testing.T) {
	t.Parallel()
	l := echo(t)
	c := dial(t, l)
	if _, err := ask(t, c, 10*time.Second); err != nil {
		t.Fatal(err)
	}
	l.Cut()
	if _, err := ask(t, c, 10*time.Second); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the connection ended with %v", err)
	}
	if other, err := new(net.Dialer).DialContext(t.Context(), "tcp", l.Addr()); err == nil {
		t.Error("a connection is taken", other.Close())
	}
	if err := l.Mend(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := ask(t, dial(t, l), 10*time.Second); err != nil {
		t.Errorf("mended: %v", err)
	}
}

func TestASilentLineIsOpenAndLetsNothingThrough(t *testing.T) {
	t.Parallel()
	l := echo(t)
	c := dial(t, l)
	l.Silence()
	if _, err := ask(t, c, 100*time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("ended with %v", err)
	}
	l.Heal()
	// The dropped data is missing, so the connection cannot continue.
	if _, err := ask(t, c, 10*time.Second); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the connection ended with %v", err)
	}
	if _, err := ask(t, dial(t, l), 10*time.Second); err != nil {
		t.Errorf("healed: %v", err)
	}
}

func TestASlowLineTakesItsTime(t *testing.T) {
	t.Parallel()
	for name, slow := range map[string]func(*proxy.Proxy){
		"delayed": func(l *proxy.Proxy) { l.Delay(100 * time.Millisecond) },
		"narrow":  func(l *proxy.Proxy) { l.Limit(60) }, // six bytes a tenth of a second
	} {
		l := echo(t)
		c := dial(t, l)
		slow(l)
		took, err := ask(t, c, 10*time.Second)
		if err != nil || took < 200*time.Millisecond { // there and back
			t.Errorf("%s: %v (%v)", name, took, err)
		}
		l.Heal()
		for started := time.Now(); took >= 200*time.Millisecond; {
			if took, err = ask(t, c, 10*time.Second); err != nil || time.Since(started) > 10*time.Second {
				t.Fatalf("%s, then healed: %v (%v)", name, took, err)
			}
		}
	}
}
