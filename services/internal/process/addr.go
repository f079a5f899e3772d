package process

import (
	"fmt"
	"net"
	"strconv"
	"strings"
)

// CheckAddr validates a listen address, which needs both a host and a port. If
// one is missing, net.Listen takes any, which a user who leaves it out rarely
// means.
func CheckAddr(addr string) error {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		if isPort(addr) {
			return badAddr(addr, addr)
		}
		return badAddr(addr, "3000")
	}
	switch {
	case !isPort(port):
		return fmt.Errorf("%w; a port is a number up to 65535", badAddr(addr, "3000"))
	case host == "":
		return fmt.Errorf("%w, or 0.0.0.0:%s to be reachable from other machines", badAddr(addr, port), port)
	case net.ParseIP(cutZone(host)) == nil && !isHostName(host):
		return badAddr(addr, port)
	}
	return nil
}

func badAddr(addr, port string) error {
	return fmt.Errorf("invalid address %q: want host:port such as 127.0.0.1:%s", addr, port)
}

func isPort(s string) bool {
	_, err := strconv.ParseUint(s, 10, 16)
	return err == nil && s[0] != '+'
}

func cutZone(host string) string {
	ip, _, _ := strings.Cut(host, "%")
	return ip
}

func isHostName(host string) bool {
	return len(host) <= 253 && !strings.ContainsFunc(host, func(c rune) bool {
		return c != '.' && c != '-' && c != '_' && (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z')
	})
}
