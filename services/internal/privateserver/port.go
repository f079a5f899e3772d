package privateserver

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
)

// Ports are picked below the range for outgoing connections (32768 and up on
// Linux, 49152 on others), so that none can take the port between its choice
// and the server's bind, or while the server is down.
const (
	lowestPort  = 20000
	highestPort = 32000
	portTries   = 200
)

// ports picks free ports of 127.0.0.1, no port twice.
type ports map[int]bool

// pick returns wanted if it is free, and another port otherwise.
func (p ports) pick(ctx context.Context, wanted int) (int, error) {
	if wanted != 0 && p.take(ctx, wanted) {
		return wanted, nil
	}
	for range portTries {
		port := lowestPort + rand.IntN(highestPort-lowestPort) //nolint:gosec // for spreading, not for security
		if p.take(ctx, port) {
			return port, nil
		}
	}
	return 0, fmt.Errorf("no free port on 127.0.0.1 between %d and %d", lowestPort, highestPort)
}

func (p ports) take(ctx context.Context, port int) bool {
	if p[port] {
		return false
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp4", address(port))
	if err != nil {
		return false
	}
	p[port] = true
	return l.Close() == nil
}

func address(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }
