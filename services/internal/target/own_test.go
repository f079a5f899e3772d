package target

import (
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"
)

func TestGuardRefusesTheMachinesOwnAddresses(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_700_000_000, 0)
	own, broken := []netip.Prefix{netip.MustParsePrefix("5.5.5.5/32"), netip.MustParsePrefix("2a00::5/128")}, error(nil)
	allowed := NewGuard([]netip.Prefix{netip.MustParsePrefix("6.6.6.6/32")})
	allowed.own = ownAddresses{now: func() time.Time { return now }, list: func() ([]netip.Prefix, error) { return own, broken }}
	check := func(addr string) error { return allowed.Check(netip.AddrPortFrom(netip.MustParseAddr(addr), 80)) }
	for _, addr := range []string{"5.5.5.5", "::ffff:5.5.5.5", "2a00::5"} {
		if err := check(addr); !errors.Is(err, ErrBlocked) {
			t.Errorf("%s is this machine's, and %v", addr, err)
		}
	}
	if err := errors.Join(check("5.5.5.6"), check("2a00::6")); err != nil {
		t.Error(err)
	}
	// Addresses come and go.
	own = []netip.Prefix{netip.MustParsePrefix("6.6.6.6/32"), netip.MustParsePrefix("7.7.7.7/32")}
	now = now.Add(ownFor)
	if err := check("7.7.7.7"); !errors.Is(err, ErrBlocked) {
		t.Errorf("a new address of this machine: %v", err)
	}
	if err := errors.Join(check("5.5.5.5"), check("6.6.6.6")); err != nil {
		t.Errorf("one that is gone, and one that is allowed: %v", err)
	}
	// If they cannot be read, the known ones apply.
	broken, own = errors.New("too many open files"), nil
	now = now.Add(ownFor)
	if err := check("7.7.7.7"); !errors.Is(err, ErrBlocked) {
		t.Errorf("while interfaces cannot be read: %v", err)
	}
}

func TestGuardKnowsTheInterfaces(t *testing.T) {
	t.Parallel()
	networks, err := interfaceNetworks()
	if err != nil {
		t.Fatal(err)
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	if len(addrs) == 0 || len(networks) != len(addrs) {
		t.Errorf("%d networks of %d addresses", len(networks), len(addrs))
	}
	for _, a := range addrs {
		network, _ := a.(*net.IPNet)
		addr, ok := netip.AddrFromSlice(network.IP)
		found := false
		for _, p := range networks {
			found = found || p.Contains(addr.Unmap())
		}
		if !ok || !found {
			t.Errorf("%s is not among %v", a, networks)
		}
	}
}

func TestGuardRefusesAConnectionToThisMachine(t *testing.T) {
	t.Parallel()
	guard := NewGuard([]netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")})
	tcp := func(text string) net.Addr { return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(text)) }
	for _, c := range []struct {
		local, remote net.Addr
		refused       bool
	}{
		{tcp("5.5.5.5:40000"), tcp("5.5.5.5:80"), true},
		{tcp("[::ffff:5.5.5.5]:40000"), tcp("5.5.5.5:80"), true},
		{tcp("[2a00:1450::5]:40000"), tcp("[2a00:1450::5]:80"), true},
		{tcp("192.168.0.1:40000"), tcp("5.5.5.5:80"), false},
		{tcp("127.0.0.1:40000"), tcp("127.0.0.1:80"), false}, // allowed
		{&net.UnixAddr{Name: "/a"}, &net.UnixAddr{Name: "/b"}, true},
	} {
		err := guard.CheckConnected(c.local, c.remote)
		if c.refused != errors.Is(err, ErrBlocked) {
			t.Errorf("from %s to %s: %v, want refused %v", c.local, c.remote, err, c.refused)
		}
	}
}
