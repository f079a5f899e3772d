package sender

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/textproto"
	"net/url"
	"sync"
	"time"

	"posthorn/events/webhook"
	"posthorn/services/internal/target"
)

// Config of a Sender. The zero value is safe to use.
type Config struct {
	// AllowNetworks are private networks that may be reached.
	AllowNetworks []netip.Prefix
	// UserAgent defaults to "Posthorn/1".
	UserAgent string
	// MaxResponseBody is how much of a response's body is kept. Default 16 KiB.
	MaxResponseBody int
	// MaxTimeout bounds Request.Timeout. Default 30 s.
	MaxTimeout time.Duration
	// MaxIdlePerHost and MaxIdle bound the idle connections, per host and in
	// total. Default 512 and 4,096.
	MaxIdlePerHost, MaxIdle int
	// RootCAs replaces the system's certificate authorities.
	RootCAs *x509.CertPool
	// Resolver looks up names. The default is Go's own, which does not accept
	// the C library's further spellings of an address.
	Resolver *net.Resolver
}

const (
	defaultTimeout = 15 * time.Second
	dialTimeout    = 10 * time.Second
	// Node and Apache close an idle connection after five seconds. Closing it
	// first avoids writing a request to a connection that is being closed, when
	// it would be unknown whether the server read it.
	idleTimeout = 4 * time.Second

	maxResponseHeader = 32 << 10
	// If no more than this is left of a body that is too long to keep, reading
	// it is cheaper than opening another connection.
	maxDrain = 64 << 10
)

// Request is a request to send.
type Request struct {
	// URL as target.ValidateURL accepts it.
	URL string
	// Body is sent unchanged. The caller must not modify it afterwards: an
	// abandoned request may still be written when Send returns.
	Body []byte
	// ID is the webhook-id.
	ID string
	// Secrets sign the request; at least one must be usable.
	Secrets []webhook.Secret
	// Headers to add. Content-Type is application/json unless set here.
	Headers http.Header
	// Timeout for the whole attempt. Default 15 s.
	Timeout time.Duration
	// At is the webhook-timestamp; zero means now.
	At time.Time
}

// Result is the outcome of an attempt.
type Result struct {
	// StartedAt and Duration of the attempt, including the response's body.
	StartedAt time.Time
	Duration  time.Duration
	// Status of the response, or 0 if there was none. It may be set although
	// Class is not ClassOK or ClassStatus: then the response was incomplete,
	// and counts as none.
	Status int
	Class  Class
	// Error explains a failure to the subscriber. Empty if OK.
	Error string
	// Refusal is for the operator only: the reason for ClassAddress, "dns: ..."
	// or "blocked: ...".
	Refusal string
	// RequestHeaders and ResponseHeaders by canonical name, capped, and
	// without credentials. The signature is kept.
	RequestHeaders, ResponseHeaders map[string]string
	// ResponseBody is the beginning of the response's body; ResponseTruncated
	// reports whether there was more.
	ResponseBody      []byte
	ResponseTruncated bool
	// Reconnected: a kept-open connection ended before there was a response,
	// and the request was repeated on a new one.
	Reconnected bool
	// RetryAfter is the wait that a response other than 2xx asked for, complete
	// or not, in whole seconds and at most 24 h.
	RetryAfter time.Duration
}

// OK reports whether the subscriber has the event: a complete 2xx response.
func (r Result) OK() bool { return r.Class == ClassOK }

// Sender makes attempts. It is safe for concurrent use and keeps connections
// open between attempts.
type Sender struct {
	transport *http.Transport
	// fresh is like transport and keeps no connection.
	fresh      *http.Transport
	guard      *target.Guard
	userAgent  []string
	maxBody    int
	maxTimeout time.Duration
	buffers    sync.Pool // of *[]byte, maxBody+1 long
}

// New returns a Sender.
func New(config Config) *Sender {
	s := &Sender{
		guard:      target.NewGuard(config.AllowNetworks),
		userAgent:  []string{cmp.Or(config.UserAgent, "Posthorn/1")},
		maxBody:    cmp.Or(config.MaxResponseBody, 16<<10),
		maxTimeout: cmp.Or(config.MaxTimeout, 30*time.Second),
	}
	s.buffers.New = func() any {
		buf := make([]byte, s.maxBody+1)
		return &buf
	}
	if config.RootCAs == nil {
		// Load the pool now; package x509 caches it. Loaded without free files,
		// it would stay empty until the process ends.
		_, _ = x509.SystemCertPool()
	}
	resolver := config.Resolver
	if resolver == nil {
		resolver = &net.Resolver{PreferGo: true}
	}
	dialer := &net.Dialer{
		Timeout:        dialTimeout,
		ControlContext: s.guard.Control,
		Resolver:       resolver,
		// TCP keep-alive is useless for connections that live for seconds, and
		// costs three system calls each.
		KeepAlive: -1,
	}
	// HTTP/1.1 only: one request per connection at a time, so that attempts to
	// one host fail independently, and no retry inside the library, which
	// HTTP/2 makes on a refused stream.
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	s.transport = &http.Transport{
		Proxy:                  nil, // a proxy would connect for us, past the guard
		DialContext:            s.dialContext(dialer),
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: config.RootCAs},
		TLSHandshakeTimeout:    dialTimeout,
		DisableCompression:     true,
		MaxIdleConns:           cmp.Or(config.MaxIdle, 4096),
		MaxIdleConnsPerHost:    cmp.Or(config.MaxIdlePerHost, 512),
		IdleConnTimeout:        idleTimeout,
		MaxResponseHeaderBytes: maxResponseHeader,
		Protocols:              protocols,
	}
	s.fresh = s.transport.Clone()
	// Unlike DisableKeepAlives it sends no Connection: close, so the two
	// requests are the same.
	s.fresh.MaxIdleConnsPerHost = -1
	return s
}

// dialContext is dialer's, except that names of this machine do not use DNS,
// and that the Guard also checks the connection afterwards.
func (s *Sender) dialContext(dialer *net.Dialer) func(ctx context.Context, network, address string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dialName(ctx, dialer, network, address)
		if err != nil {
			return nil, err
		}
		if err := s.guard.CheckConnected(conn.LocalAddr(), conn.RemoteAddr()); err != nil {
			_ = conn.Close() // nothing was sent
			return nil, err
		}
		return conn, nil
	}
}

// Close closes idle connections. Attempts in flight continue.
func (s *Sender) Close() { s.transport.CloseIdleConnections() }

// Send makes one attempt. If ctx ends before the attempt, the result is
// ClassCancelled, whatever the subscriber might still have responded.
func (s *Sender) Send(ctx context.Context, r Request) Result {
	result := Result{StartedAt: time.Now()}
	s.send(ctx, r, &result)
	result.Duration = time.Since(result.StartedAt)
	return result
}

func (s *Sender) send(ctx context.Context, r Request, result *Result) {
	to, err := target.ParseURL(r.URL)
	if err != nil {
		result.Class, result.Error = ClassProtocol, err.Error()
		return
	}
	if !webhook.ValidID(r.ID) {
		result.Class, result.Error = ClassProtocol, "the event's id cannot be a webhook-id"
		return
	}
	at := r.At
	if at.IsZero() {
		at = result.StartedAt
	}
	signature := webhook.Sign(r.ID, at, r.Body, r.Secrets...)
	if signature == "" {
		// Never send unsigned: a receiver could come to rely on not checking.
		result.Class, result.Error = ClassProtocol, "there is no secret to sign with"
		return
	}
	header := s.header(r, at, signature)
	result.RequestHeaders = keep(header)

	timeout := min(cmp.Or(r.Timeout, defaultTimeout), s.maxTimeout)
	attempt, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()

	// RoundTrip, not Client.Do: no redirects, no cookies, no second timer.
	response, again, err := s.roundTrip(attempt, func(ctx context.Context) *http.Request {
		return newRequest(ctx, to, header, r.Body)
	})
	result.Reconnected = again
	if err != nil {
		s.fail(ctx, attempt, err, timeout, result)
		return
	}
	defer func() { _ = response.Body.Close() }() // the rest is not needed

	result.Status = response.StatusCode
	result.ResponseHeaders = keepResponse(response.Header)
	if result.Status < 200 || result.Status >= 300 {
		result.RetryAfter = retryAfter(response.Header, time.Now())
	}
	if err := s.readBody(response, result); err != nil {
		s.fail(ctx, attempt, err, timeout, result)
		return
	}
	if result.Status >= 200 && result.Status < 300 {
		result.Class = ClassOK
		return
	}
	result.Class = ClassStatus
	result.Error = statusText(result.Status)
}

func newRequest(ctx context.Context, to *url.URL, header http.Header, body []byte) *http.Request {
	request := &http.Request{
		Method:        http.MethodPost,
		URL:           to,
		Host:          to.Host,
		Header:        header,
		ContentLength: int64(len(body)),
		Proto:         "HTTP/1.1",
		ProtoMajor:    1,
		ProtoMinor:    1,
	}
	if len(body) > 0 {
		request.Body = io.NopCloser(bytes.NewReader(body))
		// With GetBody the transport may use another connection if a pooled one
		// turns out to be closed before anything was written, and in no other
		// case.
		request.GetBody = func() (io.ReadCloser, error) {
			return io.NopCloser(bytes.NewReader(body)), nil
		}
	} else {
		request.Body = http.NoBody
	}
	return request.WithContext(ctx)
}

// header builds the request's headers. Ours come last and override others.
func (s *Sender) header(r Request, at time.Time, signature string) http.Header {
	header := make(http.Header, 5+len(r.Headers))
	values := [...]string{"application/json", r.ID, webhook.Timestamp(at), signature}
	header["Content-Type"] = values[0:1:1]
	header["User-Agent"] = s.userAgent
	for name, v := range r.Headers {
		if name = textproto.CanonicalMIMEHeaderKey(name); !dropped(name) {
			header[name] = v
		}
	}
	header["Webhook-Id"] = values[1:2:2]
	header["Webhook-Timestamp"] = values[2:3:3]
	header["Webhook-Signature"] = values[3:4:4]
	return header
}

// readBody keeps the beginning of the body. An error means that this beginning
// did not arrive completely.
func (s *Sender) readBody(response *http.Response, result *Result) error {
	if response.Body == http.NoBody || response.StatusCode == http.StatusSwitchingProtocols {
		return nil
	}
	pooled, ok := s.buffers.Get().(*[]byte)
	if !ok { // cannot happen: the pool holds nothing else
		return io.ErrUnexpectedEOF
	}
	defer s.buffers.Put(pooled)
	buf := *pooled

	n, err := readUpTo(response.Body, buf)
	if err == nil { // one byte more than the limit
		n = s.maxBody
		result.ResponseTruncated = true
		if left := response.ContentLength - int64(len(buf)); response.ContentLength > 0 && left <= maxDrain {
			// The result is known; the rest does not matter.
			_, _ = io.Copy(io.Discard, response.Body)
		}
	}
	if n > 0 {
		result.ResponseBody = bytes.Clone(buf[:n])
	}
	if err != nil && !errors.Is(err, io.EOF) {
		result.ResponseTruncated = true
		return err
	}
	return nil
}

// readUpTo fills buf, or returns the error that ended the reading earlier:
// io.EOF for a complete body. io.ReadFull has one error for that and for a
// truncated body.
func readUpTo(r io.Reader, buf []byte) (n int, err error) {
	for n < len(buf) && err == nil {
		var k int
		k, err = r.Read(buf[n:])
		n += k
	}
	if n == len(buf) {
		err = nil
	}
	return n, err
}
