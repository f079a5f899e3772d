package sender

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"posthorn/services/internal/target"
)

func TestShortagesAreOurs(t *testing.T) {
	t.Parallel()
	loopback := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 80}
	dial := func(call string, errno syscall.Errno) error {
		return &net.OpError{Op: "dial", Net: "tcp", Addr: loopback, Err: os.NewSyscallError(call, errno)}
	}
	lookup := func(errno syscall.Errno) error {
		return &net.OpError{Op: "dial", Net: "tcp", Err: &net.DNSError{Err: "dial udp 192.0.2.1:53: socket: " + errno.Error(), Name: "a.example"}}
	}
	for name, c := range map[string]struct {
		err   error
		class Class
	}{
		"no files of the process":             {dial("socket", syscall.EMFILE), ClassShortage},
		"no files of the machine":             {dial("socket", syscall.ENFILE), ClassShortage},
		"no ports":                            {dial("connect", syscall.EADDRNOTAVAIL), ClassShortage},
		"no buffers":                          {dial("connect", syscall.ENOBUFS), ClassShortage},
		"no memory":                           {dial("socket", syscall.ENOMEM), ClassShortage},
		"no room":                             {dial("connect", syscall.EAGAIN), ClassShortage},
		"no files for a lookup":               {lookup(syscall.EMFILE), ClassShortage},
		"no files of the machine, a lookup":   {lookup(syscall.ENFILE), ClassShortage},
		"no buffers for a lookup":             {lookup(syscall.ENOBUFS), ClassShortage},
		"while writing":                       {&net.OpError{Op: "write", Net: "tcp", Err: os.NewSyscallError("write", syscall.ENOBUFS)}, ClassShortage},
		"refused":                             {dial("connect", syscall.ECONNREFUSED), ClassConnect},
		"a lookup that was refused":           {lookup(syscall.ECONNREFUSED), classDNS},
		"an address that cannot be spoken to": {&net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", syscall.EADDRNOTAVAIL)}, ClassConnect},
		"a blocked address, while short":      {fmt.Errorf("%w: %w", target.ErrBlocked, syscall.EMFILE), classBlocked},
	} {
		if class, text := classify(c.err); class != c.class || text == "" || strings.ContainsAny(text, "0123456789") {
			t.Errorf("%s: %s %q, want %s", name, class, text, c.class)
		}
	}
}

const withoutFiles = "SENDER_TEST_WITHOUT_FILES"

// A separate process, which shares no files with the other tests.
func TestSendWithoutFiles(t *testing.T) {
	t.Parallel()
	if os.Getenv(withoutFiles) != "" {
		sendWithoutFiles(t)
		return
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestSendWithoutFiles$", "-test.v")
	cmd.Env = append(os.Environ(), withoutFiles+"=yes")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func sendWithoutFiles(t *testing.T) {
	t.Helper()
	port, _ := countingListener(t, "127.0.0.1:0")
	s := newSender(t, Config{})
	limit := syscall.Rlimit{Cur: 64, Max: 64}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	var files []*os.File
	for {
		file, err := os.Open(os.DevNull)
		if err != nil {
			if !errors.Is(err, syscall.EMFILE) {
				t.Fatal(err)
			}
			break
		}
		files = append(files, file)
	}
	for _, url := range []string{"http://127.0.0.1:" + port, "https://127.0.0.1:" + port, "http://nobody.example/", "https://nobody.example/"} {
		got := s.Send(t.Context(), newRequestTo(url))
		wantClass(t, got, ClassShortage, "no files left")
	}
	for _, file := range files[:16] {
		if err := file.Close(); err != nil {
			t.Fatal(err)
		}
	}
	wantClass(t, s.Send(t.Context(), newRequestTo("http://127.0.0.1:"+port)), ClassOK, "")
}
