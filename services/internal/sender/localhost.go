package sender

import (
	"context"
	"errors"
	"net"
	"strings"
)

var errNoNameServer = errors.New("name servers are not asked for localhost")

// dialName connects to localhost and the names below it as RFC 6761 (6.3) requires: to the
// addresses of localhost in the hosts file, so that a container can change them, or else to
// loopback. It does not ask name servers.
func dialName(ctx context.Context, dialer *net.Dialer, network, address string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil || !isLocalhost(host) {
		return dialer.DialContext(ctx, network, address)
	}
	local := *dialer
	local.Resolver = &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		return nil, errNoNameServer
	}}
	conn, err := local.DialContext(ctx, network, net.JoinHostPort("localhost", port))
	if _, ok := errors.AsType[*net.DNSError](err); ok {
		return dialLoopback(ctx, &local, network, port)
	}
	return conn, err
}

func dialLoopback(ctx context.Context, dialer *net.Dialer, network, port string) (net.Conn, error) {
	conn, err := dialer.DialContext(ctx, network, net.JoinHostPort("127.0.0.1", port))
	if err == nil {
		return conn, nil
	}
	if conn, err6 := dialer.DialContext(ctx, network, net.JoinHostPort("::1", port)); err6 == nil {
		return conn, nil
	}
	return nil, err
}

func isLocalhost(host string) bool {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	return host == "localhost" || strings.HasSuffix(host, ".localhost")
}
