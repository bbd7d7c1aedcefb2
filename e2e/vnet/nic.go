package vnet

import (
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// NIC is a network interface: addresses, an access link into a cloud, and the
// sockets bound to it.
type NIC struct {
	net   *Network
	name  string
	cloud *Cloud
	addrs []netip.Addr
	link  Link
	mtu   int

	unplugged bool
	watchers  []func(up bool)
	ports     map[uint16]*Bind
	router    *Router // of a router's outside
}

// newNIC is called with n.mu held.
func (n *Network) newNIC(c *Cloud, name string, addrs []netip.Addr) *NIC {
	nic := &NIC{net: n, name: name, ports: make(map[uint16]*Bind), link: Link{Out: n.newShaper(), In: n.newShaper()}}
	nic.join(c, addrs)
	return nic
}

// join takes the addresses in the cloud, leaving where the NIC was before.
func (nic *NIC) join(c *Cloud, addrs []netip.Addr) {
	fresh := make([]netip.Addr, len(addrs))
	for i, a := range addrs {
		fresh[i] = a.Unmap().WithZone("")
		if owner := c.nics[fresh[i]]; owner != nil && owner != nic {
			panic(fmt.Sprintf("vnet: %s and %s both want %s in cloud %s", owner.name, nic.name, a, c.name))
		}
	}
	if nic.cloud != nil {
		for _, a := range nic.addrs {
			delete(nic.cloud.nics, a)
		}
	}
	for _, a := range fresh {
		c.nics[a] = nic
	}
	nic.cloud, nic.addrs = c, fresh
}

// Name is "node.nic".
func (nic *NIC) Name() string { return nic.name }

// Link is the NIC's access line; Out is the direction away from it.
func (nic *NIC) Link() *Link { return &nic.link }

// Addrs returns the addresses that the NIC has now.
func (nic *NIC) Addrs() []netip.Addr {
	nic.net.mu.Lock()
	defer nic.net.mu.Unlock()
	return slices.Clone(nic.addrs)
}

// SetAddrs replaces the addresses (roaming). What is under way to the old ones
// is lost; sockets stay bound. It panics if one is taken.
func (nic *NIC) SetAddrs(addrs ...netip.Addr) {
	nic.net.mu.Lock()
	defer nic.net.mu.Unlock()
	nic.join(nic.cloud, addrs)
}

// Move plugs the NIC into another cloud (from one network's reach into
// another's).
func (nic *NIC) Move(c *Cloud, addrs ...netip.Addr) {
	nic.net.mu.Lock()
	defer nic.net.mu.Unlock()
	nic.join(c, addrs)
}

// SetMTU makes sends of larger IP packets fail with EMSGSIZE, as a socket with
// IP_PMTUDISC_PROBE does; 0, the default, lets all pass.
func (nic *NIC) SetMTU(mtu int) {
	nic.net.mu.Lock()
	defer nic.net.mu.Unlock()
	nic.mtu = mtu
}

// SetCarrier plugs the cable in or out. Watchers are told before it returns if
// that is a change. Without carrier nothing enters or leaves.
func (nic *NIC) SetCarrier(up bool) {
	nic.net.mu.Lock()
	changed := nic.unplugged == up
	nic.unplugged = !up
	watchers := slices.Clone(nic.watchers)
	nic.net.mu.Unlock()
	if !changed {
		return
	}
	for _, w := range watchers {
		w(up)
	}
}

// OnCarrier has f called at every change of carrier, by whoever changes it.
func (nic *NIC) OnCarrier(f func(up bool)) {
	nic.net.mu.Lock()
	defer nic.net.mu.Unlock()
	nic.watchers = append(nic.watchers, f)
}

// source picks an address for a destination: want if the NIC (still) has it,
// otherwise the first of the family. The caller holds the network's mutex.
func (nic *NIC) source(want, dst netip.Addr) (netip.Addr, bool) {
	if want.IsValid() && want.Is4() == dst.Is4() && slices.Contains(nic.addrs, want) {
		return want, true
	}
	for _, a := range nic.addrs {
		if a.Is4() == dst.Is4() {
			return a, true
		}
	}
	return netip.Addr{}, false
}

// egress sends a datagram out of the NIC. The caller holds the network's mutex.
func (nic *NIC) egress(d *datagram, now time.Time) {
	if nic.unplugged {
		nic.net.end(d, NoCarrier, now)
		return
	}
	d.via = nic
	nic.net.filter(nic, Outgoing, d, now, func(d *datagram, now time.Time) {
		nic.net.tap(nic, Outgoing, d, now)
		nic.net.pass(nic.link.Out, d, now, func(d *datagram, now time.Time) {
			// The cable decides when the bits leave, and where it is plugged in.
			if nic.unplugged {
				nic.net.end(d, NoCarrier, now)
				return
			}
			nic.cloud.route(d, now)
		})
	})
}

// ingress takes a datagram off the cloud towards the NIC.
func (nic *NIC) ingress(d *datagram, now time.Time) {
	nic.net.pass(nic.link.In, d, now, nic.arrived)
}

func (nic *NIC) arrived(d *datagram, now time.Time) {
	if nic.unplugged {
		nic.net.end(d, NoCarrier, now)
		return
	}
	nic.net.filter(nic, Incoming, d, now, func(d *datagram, now time.Time) {
		nic.net.tap(nic, Incoming, d, now)
		if nic.router != nil {
			nic.router.inbound(d, now)
			return
		}
		d.rec.To = nic.name
		// It may have moved on while the datagram was on the line.
		if !slices.Contains(nic.addrs, d.dst.Addr()) {
			nic.net.end(d, NoRoute, now)
			return
		}
		nic.deliver(d, now)
	})
}

func (nic *NIC) deliver(d *datagram, now time.Time) {
	b := nic.ports[d.dst.Port()]
	switch {
	case b == nil:
		nic.net.end(d, NoSocket, now)
	case !b.offer(d):
		nic.net.end(d, SocketFull, now)
	default:
		nic.net.end(d, Delivered, now)
	}
}
