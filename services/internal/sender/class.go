package sender

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"posthorn/services/internal/target"
)

// Class is the class of an attempt's outcome. It is stored.
type Class string

// The classes. All but the last two are about the subscriber's server.
//
// The subscriber sees a name without an address and an address that the Guard
// refuses as one class with one text: the difference would reveal which names
// exist internally. The operator has it in Result.Refusal.
const (
	ClassOK        Class = "ok"        // a complete 2xx response
	ClassStatus    Class = "status"    // a complete response that is not 2xx
	ClassTimeout   Class = "timeout"   // not complete in time, including the name's lookup
	ClassConnect   Class = "connect"   // refused, reset, unreachable, closed early
	ClassAddress   Class = "address"   // the host has no address that may be reached
	ClassTLS       Class = "tls"       // no trusted connection
	ClassProtocol  Class = "protocol"  // not HTTP, too large a header, or a request that cannot be made
	ClassShortage  Class = "shortage"  // we are short of files, ports or memory: not the subscriber's failure, not counted
	ClassCancelled Class = "cancelled" // we stopped it: not the subscriber's failure, not counted
)

// The refusals that ClassAddress stands for.
const (
	classDNS     Class = "dns"     // the name has no address
	classBlocked Class = "blocked" // refused by the Guard
)

// Blocked reports whether a Result.Refusal is the Guard's.
func Blocked(refusal string) bool { return strings.HasPrefix(refusal, string(classBlocked)+":") }

// addressText is the text of ClassAddress.
const addressText = "the host has no address that may be reached"

const maxErrorLen = 240

// fail sets the class and the error text for a request that got no complete
// response. The texts are our own: those of package net contain addresses of
// this machine, of its resolver, and of the resolved name.
func (s *Sender) fail(ctx, attempt context.Context, err error, timeout time.Duration, result *Result) {
	result.Class, result.Error = classify(err)
	switch {
	case errors.Is(err, target.ErrBlocked):
		// Before anything else, so that the text does not depend on timing.
	case result.Class == ClassShortage && result.Status == 0:
		// Cancelled by us, even if the timeout has also passed.
	case ctx.Err() != nil:
		result.Class, result.Error = ClassCancelled, "stopped before there was a response"
	case attempt.Err() != nil:
		result.Class = ClassTimeout
		result.Error = "no response within " + timeout.String()
	}
	if result.Class == classDNS || result.Class == classBlocked {
		result.Refusal = string(result.Class) + ": " + result.Error
		result.Class, result.Error = ClassAddress, addressText
	}
	if result.Status != 0 && result.Class != ClassCancelled {
		result.Error = "status " + strconv.Itoa(result.Status) + ", but the response was not complete: " + result.Error
	}
	result.Error = clip(result.Error)
}

func classify(err error) (Class, string) {
	var (
		dnsErr    *net.DNSError
		addrErr   *net.AddrError
		opErr     *net.OpError
		certErr   *tls.CertificateVerificationError
		recordErr tls.RecordHeaderError
		alertErr  tls.AlertError
		hostErr   x509.HostnameError
		netErr    net.Error
	)
	dialing := errors.As(err, &opErr) && opErr.Op == "dial"
	if errors.Is(err, target.ErrBlocked) {
		return classBlocked, "the address of this host is not allowed"
	}
	if text, ok := shortage(err); ok {
		return ClassShortage, text
	}
	switch {
	case errors.As(err, &dnsErr):
		switch {
		case dnsErr.IsTimeout:
			return ClassTimeout, "the host's name was not resolved in time"
		case dnsErr.IsNotFound:
			return classDNS, "the host's name has no address"
		}
		return classDNS, "the host's name could not be resolved"
	case errors.As(err, &addrErr): // of a name that is never looked up, such as those below .onion
		return classDNS, "the host's name has no address"
	case errors.As(err, &certErr):
		return ClassTLS, certErr.Err.Error()
	case errors.As(err, &hostErr):
		return ClassTLS, hostErr.Error()
	case errors.Is(err, http.ErrSchemeMismatch), errors.As(err, &recordErr):
		return ClassTLS, "the server does not speak TLS on this port"
	case errors.As(err, &alertErr), opErr != nil && opErr.Op == "remote error":
		return ClassTLS, "the server broke off the TLS handshake"
	case strings.Contains(err.Error(), "tls: "):
		return ClassTLS, "the TLS handshake failed"
	}
	if text, ok := connectError(err); ok {
		return ClassConnect, text
	}
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded),
		errors.As(err, &netErr) && netErr.Timeout():
		if dialing {
			return ClassTimeout, "no connection within " + dialTimeout.String()
		}
		return ClassTimeout, "no response in time"
	case dialing:
		return ClassConnect, "the connection failed"
	case closedEarly(err):
		return ClassConnect, "the server closed the connection before the response was complete"
	case strings.Contains(err.Error(), "response headers exceeded"):
		return ClassProtocol, "the response's headers are larger than 32 KiB"
	}
	return ClassProtocol, "the response is not valid HTTP"
}

func connectError(err error) (string, bool) {
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return "the connection was refused", true
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, syscall.ECONNABORTED):
		return "the server reset the connection", true
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.ENETDOWN),
		errors.Is(err, syscall.EADDRNOTAVAIL): // from none of our addresses, see shortage
		return "the host cannot be reached", true
	}
	return "", false
}

// closedEarly recognises connection errors without an errno. The transport does
// not export its own errors for them.
func closedEarly(err error) bool {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) {
		return true
	}
	text := err.Error()
	return strings.Contains(text, "server closed idle connection") ||
		strings.Contains(text, "transport connection broken") && strings.HasSuffix(text, "EOF")
}

func clip(text string) string {
	text = printable(text)
	if len(text) > maxErrorLen {
		text = strings.ToValidUTF8(text[:maxErrorLen], "") + "..."
	}
	return text
}

func statusText(status int) string {
	code := strconv.Itoa(status)
	switch {
	case status >= 300 && status < 400:
		return "status " + code + ": redirects are not followed"
	case http.StatusText(status) != "":
		return "status " + code + ": " + http.StatusText(status)
	}
	return "status " + code
}
