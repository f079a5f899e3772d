package sender

import (
	"errors"
	"net"
	"strings"
	"syscall"
)

// Errors that say that this machine or process has none left of something.
// They are no answer of anybody else.
func filesShort() []syscall.Errno { return []syscall.Errno{syscall.EMFILE, syscall.ENFILE} }

func otherShort() []syscall.Errno {
	return []syscall.Errno{syscall.ENOBUFS, syscall.ENOMEM, syscall.EAGAIN, syscall.ENOSPC}
}

const (
	textFiles  = "this machine has no files left to open"
	textPorts  = "this machine has no ports left to connect from"
	textMemory = "this machine has no memory left for another connection"
)

// shortage tells our own shortages from failures of the subscriber's.
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
	// The resolver keeps of the error of its own connection no more than the text.
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

// sourceless reports whether this machine has no address from which the other
// one could be reached: connecting fails with EADDRNOTAVAIL then too, as to
// [::1] where there is no IPv6, and it is no shortage. A UDP socket is given
// an address by the same rules, needs no port of TCP's, and sends nothing.
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
