package target

import (
	"bytes"
	"errors"
	"net/netip"
	"testing"

	"pgregory.net/rapid"
)

func TestGuardRefuses(t *testing.T) {
	t.Parallel()
	guard := NewGuard(nil)
	for _, text := range []string{
		// This machine.
		"127.0.0.1", "127.255.255.254", "0.0.0.0", "0.1.2.3", "::1", "::",
		// Private, carrier-grade, link-local, and the clouds' metadata.
		"10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "100.64.0.1", "100.100.100.200",
		"169.254.169.254", "192.0.0.192", "168.63.129.16", "fd00:ec2::254", "fd20:ce::254",
		"fc00::1", "fe80::1", "fe80::1%eth0", "fec0::1", "2606:4700:4700::1111%eth0",
		// IPv4 in IPv6.
		"::ffff:10.0.0.1", "::ffff:a9fe:a9fe", "::ffff:127.0.0.1", "::127.0.0.1", "::169.254.169.254",
		"64:ff9b::a9fe:a9fe", "64:ff9b::808:808", "64:ff9b:1::1", "2002:7f00:1::", "2002:a9fe:a9fe::1",
		"2001:0::1", "2001:0:4136:e378:8000:63bf:3fff:fdd2", "2a00::5efe:10.0.0.1", "2a00::200:5efe:10.0.0.1",
		// Not unicast.
		"224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255", "ff02::1", "ff0e::1",
		// Documentation, benchmarks, discard, the future.
		"192.0.2.1", "198.51.100.1", "203.0.113.1", "198.18.0.1", "198.19.255.255",
		"2001:db8::1", "3fff::1", "2001:2::1", "100::1", "5f00::1", "4000::1",
	} {
		if err := guard.Check(netip.AddrPortFrom(netip.MustParseAddr(text), 443)); !errors.Is(err, ErrBlocked) {
			t.Errorf("%s: %v, want ErrBlocked", text, err)
		}
	}
	if err := guard.Check(netip.AddrPort{}); !errors.Is(err, ErrBlocked) {
		t.Errorf("no address: %v", err)
	}
}

func TestGuardLetsThePublicThrough(t *testing.T) {
	t.Parallel()
	guard := NewGuard(nil)
	for _, text := range []string{
		"1.1.1.1", "8.8.8.8", "93.184.216.34", "9.255.255.255", "11.0.0.0", "172.15.255.255", "172.32.0.0",
		"192.167.255.255", "192.169.0.0", "100.63.255.255", "100.128.0.0", "126.255.255.255", "128.0.0.0",
		"223.255.255.255", "198.17.255.255", "198.20.0.0", "::ffff:8.8.8.8",
		"2606:4700:4700::1111", "2a00:1450:4001:80b::200e", "2001:4860:4860::8888", "2003::1", "2400:cb00::1",
	} {
		if err := guard.Check(netip.AddrPortFrom(netip.MustParseAddr(text), 443)); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestGuardAllowsWhatTheOperatorNames(t *testing.T) {
	t.Parallel()
	guard := NewGuard([]netip.Prefix{
		netip.MustParsePrefix("10.1.2.3/16"), // host bits set
		netip.MustParsePrefix("fd00::/64"),
		netip.MustParsePrefix("::ffff:192.168.7.0/120"),
	})
	for text, allowed := range map[string]bool{
		"10.1.255.255": true, "::ffff:10.1.0.1": true, "10.2.0.0": false, "127.0.0.1": false,
		"fd00::5": true, "fd00:0:0:1::5": false, "fd00::5%eth0": false,
		"192.168.7.9": true, "192.168.8.9": false, "64:ff9b::a01:1": false,
	} {
		err := guard.Check(netip.AddrPortFrom(netip.MustParseAddr(text), 8080))
		if allowed != (err == nil) {
			t.Errorf("%s: %v, want allowed %v", text, err, allowed)
		}
	}
	if err := guard.Check(netip.MustParseAddrPort("10.1.0.1:25")); !errors.Is(err, ErrBlocked) {
		t.Errorf("a bad port in an allowed network: %v", err)
	}
}

func TestGuardHookRefusesWhatItCannotRead(t *testing.T) {
	t.Parallel()
	guard := NewGuard(nil)
	for _, c := range []struct{ network, address string }{
		{"udp4", "8.8.8.8:53"}, {"unix", "/run/postgresql"}, {"tcp4", "8.8.8.8"}, {"tcp4", "example.com:80"}, {"tcp6", ""},
	} {
		if err := guard.Control(t.Context(), c.network, c.address, nil); !errors.Is(err, ErrBlocked) {
			t.Errorf("%s %q: %v", c.network, c.address, err)
		}
	}
	if err := guard.Control(t.Context(), "tcp6", "[2606:4700:4700::1111]:443", nil); err != nil {
		t.Error(err)
	}
}

// span is a range by its first and last address. The oracle below uses these,
// from the registries, so that it cannot repeat a mistake in the Guard's
// prefixes.
type span struct{ first, last string }

func (s span) contains(addr netip.Addr) bool {
	first, last, a := netip.MustParseAddr(s.first).As16(), netip.MustParseAddr(s.last).As16(), addr.As16()
	return bytes.Compare(first[:], a[:]) <= 0 && bytes.Compare(a[:], last[:]) <= 0
}

func special4() []span {
	return []span{
		{"0.0.0.0", "0.255.255.255"},
		{"10.0.0.0", "10.255.255.255"},
		{"100.64.0.0", "100.127.255.255"},
		{"127.0.0.0", "127.255.255.255"},
		{"168.63.129.16", "168.63.129.16"},
		{"169.254.0.0", "169.254.255.255"},
		{"172.16.0.0", "172.31.255.255"},
		{"192.0.0.0", "192.0.0.255"},
		{"192.0.2.0", "192.0.2.255"},
		{"192.31.196.0", "192.31.196.255"},
		{"192.52.193.0", "192.52.193.255"},
		{"192.88.99.0", "192.88.99.255"},
		{"192.168.0.0", "192.168.255.255"},
		{"192.175.48.0", "192.175.48.255"},
		{"198.18.0.0", "198.19.255.255"},
		{"198.51.100.0", "198.51.100.255"},
		{"203.0.113.0", "203.0.113.255"},
		{"224.0.0.0", "255.255.255.255"},
	}
}

func special6() []span {
	return []span{
		{"::", "::fffe:ffff:ffff"},                                  // unspecified, loopback, IPv4-compatible
		{"::1:0:0:0", "1fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"},    // IPv4-translated, NAT64, discard
		{"2001::", "2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff"},        // Teredo, benchmarks, ORCHID
		{"2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff"},    // documentation
		{"2002::", "2002:ffff:ffff:ffff:ffff:ffff:ffff:ffff"},       // 6to4
		{"2620:4f:8000::", "2620:4f:8000:ffff:ffff:ffff:ffff:ffff"}, // AS112
		{"3fff::", "3fff:fff:ffff:ffff:ffff:ffff:ffff:ffff"},        // documentation
		{"4000::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"},       // unassigned, private, local, multicast
	}
}

// oracle reports whether the address must be refused.
func oracle(addr netip.Addr) bool {
	raw := addr.As16()
	if bytes.Equal(raw[:12], []byte{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff}) {
		for _, s := range special4() {
			if s.contains(addr) {
				return true
			}
		}
		return false
	}
	for _, s := range special6() {
		if s.contains(addr) {
			return true
		}
	}
	iid := raw[8:12]
	return bytes.Equal(iid, []byte{0, 0, 0x5e, 0xfe}) || bytes.Equal(iid, []byte{2, 0, 0x5e, 0xfe})
}

func TestGuardAgreesWithTheOracle(t *testing.T) {
	t.Parallel()
	guard := NewGuard(nil)
	agrees := func(t interface {
		Helper()
		Fatalf(format string, args ...any)
	}, addr netip.Addr,
	) {
		t.Helper()
		want := oracle(addr)
		if got := guard.Check(netip.AddrPortFrom(addr, 443)) != nil; got != want {
			t.Fatalf("%s refused: %v, want %v", addr, got, want)
		}
	}
	t.Run("at every edge", func(t *testing.T) {
		t.Parallel()
		for _, s := range append(special4(), special6()...) {
			for _, text := range []string{s.first, s.last} {
				addr := netip.MustParseAddr(text)
				for _, a := range []netip.Addr{addr.Prev(), addr, addr.Next()} {
					if a.IsValid() {
						agrees(t, a)
						if a.Is4() {
							agrees(t, netip.AddrFrom16(a.As16())) // ::ffff:0:0/96
						}
					}
				}
			}
		}
	})
	t.Run("for one address in every /16 of IPv4", func(t *testing.T) {
		t.Parallel()
		for n := range 1 << 16 {
			agrees(t, netip.AddrFrom4([4]byte{byte(n >> 8), byte(n), byte(n * 7), byte(n * 13)}))
		}
	})
	t.Run("anywhere", func(t *testing.T) {
		t.Parallel()
		spans := append(special4(), special6()...)
		rapid.Check(t, func(t *rapid.T) {
			var raw [16]byte
			copy(raw[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "address"))
			// Random bytes alone would hardly ever be near a range, so usually
			// start from a range's prefix.
			if near := rapid.IntRange(-4, len(spans)-1).Draw(t, "near"); near >= 0 {
				first := netip.MustParseAddr(spans[near].first).As16()
				keep := rapid.IntRange(0, 16).Draw(t, "keep")
				copy(raw[:keep], first[:keep])
			}
			if rapid.Bool().Draw(t, "IPv4") {
				agrees(t, netip.AddrFrom4([4]byte(raw[12:])))
				return
			}
			agrees(t, netip.AddrFrom16(raw))
		})
	})
}
