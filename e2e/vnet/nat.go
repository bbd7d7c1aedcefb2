package vnet

import (
	"cmp"
	"net/netip"
	"slices"
	"time"
)

// RouterKind is how a Router translates and filters, in the words of RFC 3489
// section 5; RFC 4787 calls the first three endpoint-independent mapping.
type RouterKind uint8

// The kinds.
const (
	// Routed translates nothing: inside addresses are reachable from outside.
	Routed RouterKind = iota
	// FullCone lets anyone in through a mapping.
	FullCone
	// AddressRestricted lets in the addresses that were sent to.
	AddressRestricted
	// PortRestricted lets in the addresses and ports that were sent to.
	PortRestricted
	// Symmetric has a mapping of its own for each remote address and port.
	Symmetric
)

// String names the kind.
func (k RouterKind) String() string {
	switch k {
	case Routed:
		return "routed"
	case FullCone:
		return "full cone"
	case AddressRestricted:
		return "address restricted"
	case PortRestricted:
		return "port restricted"
	case Symmetric:
		return "symmetric"
	}
	return "unknown"
}

// RouterOptions say how a Router behaves.
type RouterOptions struct {
	Kind RouterKind
	// Timeout ends a mapping that is not used; 0 means 2 minutes (RFC 4787,
	// REQ-5). Only traffic from inside counts as use, unless InboundRefresh.
	Timeout        time.Duration
	InboundRefresh bool
	// PreservePorts keeps the inside port if it is free outside.
	PreservePorts bool
	// Hairpin lets inside hosts reach each other by outside addresses (REQ-9).
	Hairpin bool
}

// Router joins an inside cloud to an outer one.
type Router struct {
	net     *Network
	opts    RouterOptions
	inside  *Cloud
	outside *NIC
	byIn    map[mappingKey]*mapping
	byOut   map[netip.AddrPort]*mapping
	nextTry uint16
}

type mappingKey struct {
	inside netip.AddrPort
	remote netip.AddrPort // symmetric only
}

type mapping struct {
	key     mappingKey
	outside netip.AddrPort
	used    time.Time
	peers   map[netip.AddrPort]time.Time // remote -> last sent to; port 0 for address restricted
}

// Router adds a router whose outside is in c. For a NAT, addrs are the outside
// addresses; a family without one does not get out. It panics if one is taken.
func (c *Cloud) Router(name string, o RouterOptions, addrs ...netip.Addr) *Router {
	n := c.net
	n.mu.Lock()
	defer n.mu.Unlock()
	o.Timeout = cmp.Or(o.Timeout, 2*time.Minute)
	r := &Router{net: n, opts: o, outside: n.newNIC(c, name, addrs)}
	r.inside = &Cloud{net: n, name: name + "-inside", nics: make(map[netip.Addr]*NIC), gateway: r}
	r.outside.router = r
	c.routers = append(c.routers, r)
	r.forget()
	return r
}

// Inside is the cloud behind the router.
func (r *Router) Inside() *Cloud { return r.inside }

// Outside is the router's NIC in the outer cloud: its link and its addresses
// can be changed like any other's.
func (r *Router) Outside() *NIC { return r.outside }

// Rebind forgets all mappings, as a NAT that restarts: the next datagram from
// inside gets another port, and what comes in on old ones is dropped.
func (r *Router) Rebind() {
	r.net.mu.Lock()
	defer r.net.mu.Unlock()
	r.forget()
}

// Mappings returns the outside address by which each inside one is known now.
// A symmetric NAT has several for one; any of them is returned.
func (r *Router) Mappings() map[netip.AddrPort]netip.AddrPort {
	r.net.mu.Lock()
	defer r.net.mu.Unlock()
	now := time.Now()
	m := make(map[netip.AddrPort]netip.AddrPort, len(r.byIn))
	for k, v := range r.byIn {
		if now.Sub(v.used) < r.opts.Timeout {
			m[k.inside] = v.outside
		}
	}
	return m
}

func (r *Router) forget() {
	r.byIn = make(map[mappingKey]*mapping)
	r.byOut = make(map[netip.AddrPort]*mapping)
	r.nextTry = uint16(1024 + r.net.rng.IntN(65536-1024))
}

// outbound takes a datagram from inside. The caller holds the network's mutex.
func (r *Router) outbound(d *datagram, now time.Time) {
	if r.opts.Kind != Routed {
		own := slices.Contains(r.outside.addrs, d.dst.Addr())
		if own && !r.opts.Hairpin {
			r.net.end(d, NATNoHairpin, now)
			return
		}
		m, why := r.mappingFor(d, now)
		if m == nil {
			r.net.end(d, why, now)
			return
		}
		m.used = now
		m.peers[r.peer(d.dst)] = now
		d.src = m.outside
		if own {
			r.inbound(d, now)
			return
		}
	}
	r.outside.egress(d, now)
}

// inbound takes a datagram from outside.
func (r *Router) inbound(d *datagram, now time.Time) {
	if r.opts.Kind != Routed {
		m := r.byOut[d.dst]
		if m == nil || r.expired(m, now) {
			r.net.end(d, NATNoMapping, now)
			return
		}
		sent, known := m.peers[r.peer(d.src)]
		if r.opts.Kind != FullCone && (!known || now.Sub(sent) >= r.opts.Timeout) {
			r.net.end(d, NATFiltered, now)
			return
		}
		if r.opts.InboundRefresh {
			m.used = now
			m.peers[r.peer(d.src)] = now
		}
		d.dst = m.key.inside
	}
	if r.inside.owner(d.dst.Addr()) == nil {
		r.net.end(d, NoRoute, now)
		return
	}
	d.via = r.outside
	r.inside.route(d, now)
}

// peer is what the filter remembers of a remote.
func (r *Router) peer(remote netip.AddrPort) netip.AddrPort {
	switch r.opts.Kind {
	case FullCone, Routed:
		return netip.AddrPort{}
	case AddressRestricted:
		return netip.AddrPortFrom(remote.Addr(), 0)
	case PortRestricted, Symmetric:
	}
	return remote
}

func (r *Router) mappingFor(d *datagram, now time.Time) (*mapping, Outcome) {
	k := mappingKey{inside: d.src}
	if r.opts.Kind == Symmetric {
		k.remote = d.dst
	}
	addr, ok := r.outside.source(netip.Addr{}, d.dst.Addr())
	if !ok {
		return nil, NoRoute
	}
	if m := r.byIn[k]; m != nil && !r.expired(m, now) {
		if m.outside.Addr() == addr {
			return m, 0
		}
		r.remove(m) // the outside was renumbered
	}
	port, ok := r.freePort(addr, d.src.Port(), now)
	if !ok {
		return nil, NATExhausted
	}
	m := &mapping{key: k, outside: netip.AddrPortFrom(addr, port), peers: make(map[netip.AddrPort]time.Time)}
	r.byIn[k], r.byOut[m.outside] = m, m
	return m, 0
}

func (r *Router) freePort(addr netip.Addr, inside uint16, now time.Time) (uint16, bool) {
	free := func(p uint16) bool {
		m := r.byOut[netip.AddrPortFrom(addr, p)]
		return m == nil || r.expired(m, now)
	}
	if r.opts.PreservePorts && free(inside) {
		return inside, true
	}
	for range 65536 - 1024 {
		p := r.nextTry
		if r.nextTry++; r.nextTry < 1024 {
			r.nextTry = 1024
		}
		if free(p) {
			return p, true
		}
	}
	return 0, false
}

// expired removes a mapping that is too old.
func (r *Router) expired(m *mapping, now time.Time) bool {
	if now.Sub(m.used) < r.opts.Timeout {
		return false
	}
	r.remove(m)
	return true
}

func (r *Router) remove(m *mapping) {
	delete(r.byIn, m.key)
	delete(r.byOut, m.outside)
}
