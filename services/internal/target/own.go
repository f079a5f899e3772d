package target

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// ownFor is how long the addresses of this machine are cached.
const ownFor = 10 * time.Second

// ownAddresses are the addresses of this machine: even a public one leads to
// its listeners, past any firewall in front of it. An address that is
// translated on the way, as in most clouds, is not among them.
type ownAddresses struct {
	list func() ([]netip.Prefix, error)
	now  func() time.Time

	mu    sync.Mutex
	read  time.Time
	known []netip.Prefix
}

func (o *ownAddresses) contain(addr netip.Addr) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if now := o.now(); o.read.IsZero() || now.Sub(o.read) >= ownFor {
		// If they cannot be read, perhaps for lack of files, the previous ones
		// apply, and the next connection reads them again.
		if list, err := o.list(); err == nil {
			o.known, o.read = list, now
		}
	}
	return slices.ContainsFunc(o.known, func(p netip.Prefix) bool { return p.Contains(addr) })
}

// interfaceNetworks are the addresses of this machine's interfaces. On loopback
// the whole network is this machine's.
func interfaceNetworks() ([]netip.Prefix, error) {
	interfaces, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	var all []netip.Prefix
	for _, i := range interfaces {
		addrs, err := i.Addrs()
		if err != nil {
			return nil, fmt.Errorf("list addresses: %w", err)
		}
		for _, a := range addrs {
			network, ok := a.(*net.IPNet)
			if !ok {
				continue
			}
			addr, ok := netip.AddrFromSlice(network.IP)
			if !ok {
				continue
			}
			addr = addr.Unmap()
			bits := addr.BitLen()
			if ones, of := network.Mask.Size(); i.Flags&net.FlagLoopback != 0 && of == bits {
				bits = ones
			}
			all = append(all, netip.PrefixFrom(addr, bits).Masked())
		}
	}
	return all, nil
}
