package sender

import (
	"context"
	"errors"
	"net"
	"strings"
	"syscall"
	"testing"

	"posthorn/services/internal/target"
)

func TestNamesOfThisMachine(t *testing.T) {
	t.Parallel()
	for host, want := range map[string]bool{
		"localhost": true, "a.localhost": true, "A.B.LOCALHOST.": true, "localhost.": true,
		"localhost.example": false, "notlocalhost": false, "a.localhost.example": false, "localhost..": false, "": false, "127.0.0.1": false,
	} {
		if got := isLocalhost(host); got != want {
			t.Errorf("%q: %v, want %v", host, got, want)
		}
	}
}

// Without an entry for localhost in the hosts file.
func TestLoopbackIsTriedInBothFamilies(t *testing.T) {
	t.Parallel()
	var tried []string
	dialer := &net.Dialer{}
	dialer.ControlContext = func(_ context.Context, _, address string, _ syscall.RawConn) error {
		tried = append(tried, address)
		return target.ErrBlocked
	}
	_, err := dialLoopback(t.Context(), dialer, "tcp", "3001")
	// A machine without IPv6 has no socket for the second.
	all := strings.Join(tried, " ")
	if !errors.Is(err, target.ErrBlocked) || all != "127.0.0.1:3001 [::1]:3001" && all != "127.0.0.1:3001" {
		t.Errorf("tried %q: %v", tried, err)
	}
	port, _ := countingListener(t, "127.0.0.1:0")
	conn, err := dialLoopback(t.Context(), &net.Dialer{}, "tcp", port)
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
}
