package target

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"time"
)

// ErrBlocked is returned by Guard.Check for an address or port that must not be
// connected to. Its text is the same for every address, so that it does not
// reveal which exist internally.
var ErrBlocked = errors.New("address not allowed")

// Guard decides which addresses may be connected to. Everything that is not a
// plain public unicast address of another machine is refused, unless the
// operator allowed it.
type Guard struct {
	allow   []netip.Prefix
	deny4   []netip.Prefix
	deny6   []netip.Prefix
	global6 netip.Prefix
	own     ownAddresses
}

// NewGuard returns a Guard that makes an exception for the given networks.
func NewGuard(allow []netip.Prefix) *Guard {
	g := &Guard{
		own: ownAddresses{list: interfaceNetworks, now: time.Now},
		// Everything of IPv4 in the IANA special-purpose registry.
		deny4: prefixes(
			"0.0.0.0/8",        // this host
			"10.0.0.0/8",       // private
			"100.64.0.0/10",    // carrier-grade NAT; Alibaba's metadata
			"127.0.0.0/8",      // loopback
			"168.63.129.16/32", // a public address that is the platform inside Azure
			"169.254.0.0/16",   // link-local; most clouds' metadata
			"172.16.0.0/12",    // private
			"192.0.0.0/24",     // protocol assignments; Oracle's metadata
			"192.0.2.0/24",     // documentation
			"192.31.196.0/24",  // AS112
			"192.52.193.0/24",  // AMT
			"192.88.99.0/24",   // 6to4 relays
			"192.168.0.0/16",   // private
			"192.175.48.0/24",  // AS112
			"198.18.0.0/15",    // benchmarks
			"198.51.100.0/24",  // documentation
			"203.0.113.0/24",   // documentation
			"224.0.0.0/4",      // multicast
			"240.0.0.0/4",      // reserved; broadcast
		),
		// Of IPv6 only 2000::/3 is allocated. Refusing the rest covers ::/96,
		// ::ffff:0:0/96, 64:ff9b::/96, 64:ff9b:1::/48, 100::/64, 5f00::/16,
		// fc00::/7, fe80::/10, fec0::/10, ff00::/8 and future assignments.
		// Within it:
		global6: netip.MustParsePrefix("2000::/3"),
		deny6: prefixes(
			"2001::/23",         // protocol assignments: Teredo, ORCHID, benchmarks
			"2001:db8::/32",     // documentation
			"2002::/16",         // 6to4: an IPv4 address inside
			"2620:4f:8000::/48", // AS112
			"3fff::/20",         // documentation
		),
	}
	for _, p := range allow {
		g.allow = append(g.allow, unmapPrefix(p))
	}
	return g
}

func prefixes(texts ...string) []netip.Prefix {
	all := make([]netip.Prefix, len(texts))
	for i, text := range texts {
		all[i] = netip.MustParsePrefix(text)
	}
	return all
}

// unmapPrefix turns a prefix below ::ffff:0:0/96 into the IPv4 prefix that it
// stands for; addresses are unmapped too before they are compared.
func unmapPrefix(p netip.Prefix) netip.Prefix {
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		return netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96).Masked()
	}
	return p.Masked()
}

// Check returns ErrBlocked if the address must not be connected to.
func (g *Guard) Check(target netip.AddrPort) error {
	if badPort(int(target.Port())) {
		return ErrBlocked
	}
	addr := target.Addr().Unmap()
	// An address with a zone belongs to one link, and no prefix contains it.
	if !addr.IsValid() || addr.Zone() != "" {
		return ErrBlocked
	}
	contains := func(p netip.Prefix) bool { return p.Contains(addr) }
	if g.allows(addr) {
		return nil
	}
	if g.own.contain(addr) {
		return ErrBlocked
	}
	if addr.Is4() {
		if slices.ContainsFunc(g.deny4, contains) {
			return ErrBlocked
		}
		return nil
	}
	if !g.global6.Contains(addr) || slices.ContainsFunc(g.deny6, contains) || isISATAP(addr) {
		return ErrBlocked
	}
	return nil
}

func (g *Guard) allows(addr netip.Addr) bool {
	return slices.ContainsFunc(g.allow, func(p netip.Prefix) bool { return p.Contains(addr) })
}

// CheckConnected returns ErrBlocked if a connection leads back to this machine: only then are both
// of its addresses the same. The list of interfaces lacks an address that came up a moment ago, and
// one that is routed here without belonging to an interface.
func (g *Guard) CheckConnected(local, remote net.Addr) error {
	from, ok := local.(*net.TCPAddr)
	to, also := remote.(*net.TCPAddr)
	if !ok || !also {
		return fmt.Errorf("connected over %s: %w", remote.Network(), ErrBlocked)
	}
	addr := to.AddrPort().Addr().Unmap()
	if addr != from.AddrPort().Addr().Unmap() || g.allows(addr) {
		return nil
	}
	return ErrBlocked
}

// isISATAP reports whether addr's interface identifier embeds an IPv4 address
// (RFC 5214), to which a host with such a tunnel would send the packet.
func isISATAP(addr netip.Addr) bool {
	b := addr.As16()
	return (b[8] == 0 || b[8] == 2) && b[9] == 0 && b[10] == 0x5e && b[11] == 0xfe
}

// Control is net.Dialer's hook: it runs after the name is resolved and before
// each connect, so it checks the address that is dialled. Checking a name, or
// its addresses before dialling, would leave room for a different second
// answer.
func (g *Guard) Control(_ context.Context, network, address string, _ syscall.RawConn) error {
	if network != "tcp4" && network != "tcp6" {
		return fmt.Errorf("connect over %s: %w", network, ErrBlocked)
	}
	target, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("read the address to connect to: %w", ErrBlocked)
	}
	return g.Check(target)
}

// badPort reports whether the WHATWG Fetch standard blocks the port, because
// its service could interpret an HTTP request as a command of its own protocol.
func badPort(port int) bool {
	switch port {
	case 0, 1, 7, 9, 11, 13, 15, 17, 19, 20, 21, 22, 23, 25, 37, 42, 43, 53, 69,
		77, 79, 87, 95, 101, 102, 103, 104, 109, 110, 111, 113, 115, 117, 119,
		123, 135, 137, 139, 143, 161, 179, 389, 427, 465, 512, 513, 514, 515,
		526, 530, 531, 532, 540, 548, 554, 556, 563, 587, 601, 636, 989, 990,
		993, 995, 1719, 1720, 1723, 2049, 3659, 4045, 4190, 5060, 5061, 6000,
		6566, 6665, 6666, 6667, 6668, 6669, 6679, 6697, 10080:
		return true
	}
	return false
}
