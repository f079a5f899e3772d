package sender

import (
	"errors"
	"net"
	"strings"
	"syscall"
)

// Errors that mean that this machine or process has run out of a resource. They
// do not come from the peer.
func filesShort() []syscall.Errno { return []syscall.Errno{syscall.EMFILE, syscall.ENFILE} }

func otherShort() []syscall.Errno {
	return []syscall.Errno{syscall.ENOBUFS, syscall.ENOMEM, syscall.EAGAIN, syscall.ENOSPC}
}

const (
	textFiles  = "this machine has no files left to open"
	textPorts  = "this machine has no ports left to connect from"
	textMemory = "this machine has no memory left for another connection"
)

// shortage distinguishes our own shortages from failures of the subscriber's server.
func shortage(err error) (string, bool) {
	for _, errno := range filesShort() {
		if errors.Is(err, errno) {
			return textFiles, true
		}
	}
	for _, errno := range otherShort() {
		if errors.Is(err, errno) {
			return textMemory, true
		}
	}
	if opErr, ok := errors.AsType[*net.OpError](err); ok && errors.Is(err, syscall.EADDRNOTAVAIL) && !sourceless(opErr.Addr) {
		return textPorts, true
	}
	// The resolver keeps only the text of its connection's error.
	if dnsErr, ok := errors.AsType[*net.DNSError](err); ok && !dnsErr.IsNotFound {
		for _, errno := range filesShort() {
			if strings.Contains(dnsErr.Err, errno.Error()) {
				return textFiles, true
			}
		}
		for _, errno := range otherShort() {
			if strings.Contains(dnsErr.Err, errno.Error()) {
				return textMemory, true
			}
		}
	}
	return "", false
}

// sourceless reports whether this machine has no source address for the peer:
// connecting then also fails with EADDRNOTAVAIL, for example to [::1] without
// IPv6, and that is not a shortage. A UDP socket gets its address by the same
// rules, needs no TCP port, and sends nothing.
func sourceless(addr net.Addr) bool {
	tcp, ok := addr.(*net.TCPAddr)
	if !ok {
		return true
	}
	conn, err := net.DialUDP("udp", nil, &net.UDPAddr{IP: tcp.IP, Port: tcp.Port, Zone: tcp.Zone})
	if err == nil {
		_ = conn.Close() // nothing was sent
		return false
	}
	_, short := shortage(errors.Unwrap(err)) // without its address, so this ends here
	return !short
}
