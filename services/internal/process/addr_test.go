package process_test

import (
	"strings"
	"testing"

	"posthorn/services/internal/process"
)

func TestAnAddressHasAHostAndAPort(t *testing.T) {
	t.Parallel()
	for addr, hint := range map[string]string{
		"":                        "127.0.0.1:3000",
		"3999":                    "127.0.0.1:3999",
		":3999":                   "127.0.0.1:3999",
		"localhost":               "127.0.0.1:3000",
		"127.0.0.1":               "127.0.0.1:3000",
		"127.0.0.1:":              "127.0.0.1:3000",
		"0.0.0.0:99999":           "127.0.0.1:3000",
		"0.0.0.0:-1":              "127.0.0.1:3000",
		"127.0.0.1:http":          "127.0.0.1:3000",
		"http://127.0.0.1:3000":   "127.0.0.1:3000",
		"127.0.0.1:3000/":         "127.0.0.1:3000",
		"::1":                     "127.0.0.1:3000",
		"::1:3000":                "127.0.0.1:3000",
		" 127.0.0.1:3000":         "127.0.0.1:3000",
		"127.0.0.1 :3000":         "127.0.0.1:3000",
		"127.0.0.1:3000 ":         "127.0.0.1:3000",
		"user@host:3000":          "127.0.0.1:3000",
		"tcp://[::1]:3000":        "127.0.0.1:3000",
		strings.Repeat("a", 5000): "127.0.0.1:3000",
	} {
		err := process.CheckAddr(addr)
		if err == nil || !strings.Contains(err.Error(), "want host:port such as "+hint) {
			t.Errorf("CheckAddr(%q) = %v, want the hint %s", addr, err, hint)
		}
		if l, err := process.Listen(t.Context(), addr); err == nil {
			t.Errorf("Listen(%q) listens on %s", addr, l.Addr())
			_ = l.Close()
		}
	}
	for _, addr := range []string{"127.0.0.1:3999", "0.0.0.0:80", "[::]:1", "[::1]:0", "[fe80::1%eth0]:3000", "localhost:65535", "api.example-1.com:3000", "posthorn_api:3000"} {
		if err := process.CheckAddr(addr); err != nil {
			t.Errorf("CheckAddr(%q) = %v", addr, err)
		}
	}
}
