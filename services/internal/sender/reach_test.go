package sender

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"errors"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// countingListener counts connections.
func countingListener(t *testing.T, address string) (port string, accepted *atomic.Int32) {
	t.Helper()
	accepted = new(atomic.Int32)
	server := &httptest.Server{Listener: listen(t, address), Config: &http.Server{
		Handler:           http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}),
		ReadHeaderTimeout: time.Minute,
		ConnState: func(_ net.Conn, state http.ConnState) {
			if state == http.StateNew {
				accepted.Add(1)
			}
		},
	}}
	server.Start()
	t.Cleanup(server.Close)
	_, port, err := net.SplitHostPort(server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port, accepted
}

func TestSendConnectsToNothingPrivate(t *testing.T) {
	t.Parallel()
	port, accepted := countingListener(t, "127.0.0.1:0")
	s := newSender(t, Config{AllowNetworks: []netip.Prefix{}})
	texts := map[string]bool{}
	for _, host := range []string{
		"127.0.0.1", "0.0.0.0", "127.0.0.2", "[::1]", "[::]", "localhost", "LOCALHOST", "localhost.",
		"[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::127.0.0.1]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]",
		"169.254.169.254", "[fd00:ec2::254]", "10.0.0.1", "192.168.0.1", "[fe80::1]",
	} {
		got := s.Send(t.Context(), newRequestTo("http://"+host+":"+port+"/"))
		wantClass(t, got, ClassAddress, "no address that may be reached")
		texts[got.Error] = true
	}
	if len(texts) != 1 {
		t.Errorf("the errors differ: %v", texts)
	}
	if n := accepted.Load(); n != 0 {
		t.Errorf("%d connections were made", n)
	}
}

// TestNamesInsideCannotBeFoundOut tries names like a subscriber: existing
// internal names and names that do not exist must look the same.
func TestNamesInsideCannotBeFoundOut(t *testing.T) {
	t.Parallel()
	inside := nameServer(t, func(int) []string { return []string{"10.1.2.3"} })
	nowhere := nameServer(t, func(int) []string { return nil })
	results := map[string]Result{}
	for _, c := range []struct {
		name, host string
		resolver   *net.Resolver
	}{
		{"blocked", "db.corp.example", inside},
		{"dns", "nothing.corp.example", nowhere},
		{"dns", "nothing.onion", nowhere}, // which is never looked up
		{"blocked", "169.254.169.254", nowhere},
		{"blocked", "localhost", nowhere},
	} {
		s := newSender(t, Config{AllowNetworks: []netip.Prefix{}, Resolver: c.resolver})
		got := s.Send(t.Context(), newRequestTo("http://"+c.host+"/latest?token=abc"))
		if reason, _, _ := strings.Cut(got.Refusal, ":"); reason != c.name || strings.Contains(got.Refusal, "10.1.2.3") {
			t.Errorf("%s: refusal %q, want %s", c.host, got.Refusal, c.name)
		}
		// The recorded request contains the signature, and is otherwise the same.
		got.Refusal, got.StartedAt, got.Duration, got.RequestHeaders = "", time.Time{}, 0, nil
		results[c.host] = got
	}
	for host, got := range results {
		if diff := cmp.Diff(results["localhost"], got); diff != "" {
			t.Errorf("%s can be told from another host: %s", host, diff)
		}
	}
}

// nameServer answers A queries for any name with the result of next, and every
// other query with nothing.
func nameServer(t *testing.T, next func(query int) []string) *net.Resolver {
	t.Helper()
	var config net.ListenConfig
	conn, err := config.ListenPacket(t.Context(), "udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	t.Cleanup(wg.Wait)
	t.Cleanup(func() { _ = conn.Close() })
	wg.Go(func() {
		buf := make([]byte, 1500)
		for query := 0; ; {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			end := 12 + bytes.IndexByte(buf[12:n], 0) + 5 // name, type and class
			var addrs []string
			if binary.BigEndian.Uint16(buf[end-4:]) == 1 {
				query++
				addrs = next(query)
			}
			reply := slices.Clone(buf[:end])
			binary.BigEndian.PutUint16(reply[2:], 0x8580) // a response, authoritative, no error
			binary.BigEndian.PutUint16(reply[6:], uint16(len(addrs)))
			binary.BigEndian.PutUint32(reply[8:], 0)
			for _, addr := range addrs {
				a := netip.MustParseAddr(addr).As4()
				// The name as a pointer, A, IN, a TTL of zero, four bytes.
				reply = append(reply, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4)
				reply = append(reply, a[:]...)
			}
			_, _ = conn.WriteTo(reply, from)
		}
	})
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "udp", conn.LocalAddr().String())
	}}
}

// In these tests 127.0.0.2 stands for a public address, and 127.0.0.1 for an
// internal one.
func publicStandIn() []netip.Prefix {
	return []netip.Prefix{netip.MustParsePrefix("127.0.0.2/32")}
}

func TestSendIsNotFooledByANameThatMoves(t *testing.T) {
	t.Parallel()
	port, inside := countingListener(t, "127.0.0.1:0")
	_, outside := countingListener(t, "127.0.0.2:"+port)
	s := newSender(t, Config{AllowNetworks: publicStandIn(), Resolver: nameServer(t, func(query int) []string {
		if query == 1 {
			return []string{"127.0.0.2"}
		}
		return []string{"127.0.0.1"}
	})})
	url := "http://rebind.example:" + port + "/"
	wantClass(t, s.Send(t.Context(), newRequestTo(url)), ClassOK, "")
	s.Close() // the next attempt has to connect, and to look up the name, again
	wantClass(t, s.Send(t.Context(), newRequestTo(url)), ClassAddress, "no address that may be reached")
	if inside.Load() != 0 || outside.Load() != 1 {
		t.Errorf("%d connections inside, %d outside", inside.Load(), outside.Load())
	}
}

func TestSendTakesThePublicOneOfTwoAddresses(t *testing.T) {
	t.Parallel()
	for _, addrs := range [][]string{{"127.0.0.1", "127.0.0.2"}, {"127.0.0.2", "127.0.0.1"}} {
		port, inside := countingListener(t, "127.0.0.1:0")
		_, outside := countingListener(t, "127.0.0.2:"+port)
		s := newSender(t, Config{
			AllowNetworks: publicStandIn(),
			Resolver:      nameServer(t, func(int) []string { return addrs }),
		})
		wantClass(t, s.Send(t.Context(), newRequestTo("http://both.example:"+port+"/")), ClassOK, "")
		if inside.Load() != 0 || outside.Load() != 1 {
			t.Errorf("%v: %d connections inside, %d outside", addrs, inside.Load(), outside.Load())
		}
	}
}

func TestSendToANameWithoutAddress(t *testing.T) {
	t.Parallel()
	s := newSender(t, Config{Resolver: nameServer(t, func(int) []string { return nil })})
	got := s.Send(t.Context(), newRequestTo("http://nobody.example/"))
	wantClass(t, got, ClassAddress, addressText)
	if got.Refusal != "dns: the host's name has no address" {
		t.Errorf("refusal %q", got.Refusal)
	}
}

func TestSendTimesOutWhileANameIsLookedUp(t *testing.T) {
	t.Parallel()
	asked, done := make(chan struct{}, 8), make(chan struct{})
	t.Cleanup(func() { close(done) })
	s := newSender(t, Config{Resolver: &net.Resolver{
		PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			asked <- struct{}{}
			select {
			case <-ctx.Done():
			case <-done:
			}
			return nil, errors.New("no name server")
		},
	}})
	r := newRequestTo("http://slow.example/")
	r.Timeout = 200 * time.Millisecond
	wantClass(t, s.Send(t.Context(), r), ClassTimeout, "within 200ms")
	<-asked
}

// certificate returns a certificate for the given names and addresses, valid
// until until, and its authority.
func certificate(t *testing.T, until time.Time, names ...string) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"},
		NotBefore: until.Add(-48 * time.Hour), NotAfter: until,
		IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, pool
}

func TestSendVerifiesTLS(t *testing.T) {
	t.Parallel()
	tomorrow, yesterday := time.Now().Add(24*time.Hour), time.Now().Add(-24*time.Hour)
	for name, c := range map[string]struct {
		until   time.Time
		name    string
		trusted bool
		server  *tls.Config
		class   Class
		has     string
	}{
		"a good certificate": {until: tomorrow, name: "127.0.0.1", trusted: true, class: ClassOK},
		"an unknown signer":  {until: tomorrow, name: "127.0.0.1", class: ClassTLS, has: "unknown authority"},
		"an expired one":     {until: yesterday, name: "127.0.0.1", trusted: true, class: ClassTLS, has: "expired"},
		"another host's":     {until: tomorrow, name: "other.example", trusted: true, class: ClassTLS, has: "x509"},
		"TLS 1.1 at most": {
			until: tomorrow, name: "127.0.0.1", trusted: true,
			server: &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11},
			class:  ClassTLS, has: "TLS handshake",
		},
		"a client certificate wanted": {
			until: tomorrow, name: "127.0.0.1", trusted: true,
			server: &tls.Config{ClientAuth: tls.RequireAnyClientCert, MaxVersion: tls.VersionTLS12, MinVersion: tls.VersionTLS12},
			class:  ClassTLS, has: "TLS handshake",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cert, pool := certificate(t, c.until, c.name)
			if !c.trusted {
				pool = x509.NewCertPool()
			}
			var requests atomic.Int32
			server := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { requests.Add(1) }))
			server.TLS = c.server.Clone()
			if server.TLS == nil {
				server.TLS = new(tls.Config)
			}
			server.TLS.Certificates = []tls.Certificate{cert}
			server.Config.ErrorLog = log.New(t.Output(), "", 0)
			server.StartTLS()
			t.Cleanup(server.Close)

			got := newSender(t, Config{RootCAs: pool}).Send(t.Context(), newRequestTo(server.URL))
			if got.Class != c.class || c.has != "" && !bytes.Contains([]byte(got.Error), []byte(c.has)) {
				t.Errorf("class %q, error %q", got.Class, got.Error)
			}
			if (requests.Load() == 1) != (c.class == ClassOK) {
				t.Errorf("%d requests", requests.Load())
			}
		})
	}
}

func TestSendWithTLSToAServerWithout(t *testing.T) {
	t.Parallel()
	port, _ := countingListener(t, "127.0.0.1:0")
	wantClass(t, newSender(t, Config{}).Send(t.Context(), newRequestTo("https://127.0.0.1:"+port)), ClassTLS, "does not speak TLS")
}

// A slow subscriber must not delay another one.
func TestSendToOneHostIsNotHeldUpByAnother(t *testing.T) {
	t.Parallel()
	hanging := rawServer(t, untilClosed)
	quick := serve(t, func(http.ResponseWriter, *http.Request) {})
	s := newSender(t, Config{})
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for range 200 {
		wg.Go(func() { s.Send(ctx, newRequestTo(hanging)) })
	}
	for i := range 50 {
		r := newRequestTo(quick)
		r.ID = "evt_" + strconv.Itoa(i)
		r.Timeout = 5 * time.Second
		wantClass(t, s.Send(t.Context(), r), ClassOK, "")
	}
	cancel()
	wg.Wait()
}

func TestNamesBelowLocalhostAreThisMachine(t *testing.T) {
	t.Parallel()
	port, accepted := countingListener(t, "127.0.0.1:0")
	nowhere := nameServer(t, func(int) []string { return []string{"127.0.0.2"} }) // the name server's response does not matter
	s := newSender(t, Config{AllowNetworks: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32"), netip.MustParsePrefix("::1/128")}, Resolver: nowhere})
	hosts := []string{"app.localhost", "a.b.localhost", "APP.LOCALHOST", "app.localhost.", "localhost."}
	for _, host := range hosts {
		wantClass(t, s.Send(t.Context(), newRequestTo("http://"+host+":"+port+"/")), ClassOK, "")
	}
	if n := int(accepted.Load()); n == 0 || n > len(hosts) {
		t.Errorf("%d connections for %d hosts", n, len(hosts))
	}
	// The guard has the last word, as for localhost.
	s = newSender(t, Config{AllowNetworks: []netip.Prefix{}, Resolver: nowhere})
	wantClass(t, s.Send(t.Context(), newRequestTo("http://app.localhost:"+port+"/")), ClassAddress, addressText)
}

// TestAnInternationalNameIsSentAsItIsLookedUp checks the received request.
func TestAnInternationalNameIsSentAsItIsLookedUp(t *testing.T) {
	t.Parallel()
	got := make(chan string, 1)
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got <- r.Host }))
	t.Cleanup(server.Close)
	_, port, err := net.SplitHostPort(server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	s := newSender(t, Config{Resolver: nameServer(t, func(int) []string { return []string{"127.0.0.1"} })})
	wantClass(t, s.Send(t.Context(), newRequestTo("http://B\u00dcCHER.test:"+port+"/")), ClassOK, "")
	if host := <-got; host != "xn--bcher-kva.test:"+port {
		t.Errorf("Host: %s", host)
	}
}
