package netstack

import (
	"net/netip"
	"sync/atomic"

	"github.com/gaissmai/bart"

	"patronus/configs"
	"patronus/netstack/packet"
	"patronus/netstack/path"
	"patronus/netstack/policy"
	"patronus/netstack/tunnel"
)

// routeKind says where a route leads.
type routeKind uint8

const (
	routeUnreachable routeKind = iota // ours by prefix, but nothing is there
	routeHost                         // the appliance itself
	routeLAN                          // a host or next hop behind one of our LAN ports
	routeSite                         // another site
	routeDevice                       // a stock WireGuard peer on one of our uplinks
)

// route is what a prefix leads to.
type route struct {
	kind    routeKind
	port    uint16      // index into snapshot.ports, of routeLAN
	site    uint16      // index into snapshot.sites, of routeSite
	device  uint16      // index into snapshot.devices, of routeDevice
	nextHop packet.Addr // of routeLAN behind a router; zero: on link
}

// siteRoute is how a site is reached: directly, or through a hub.
type siteRoute struct {
	name    string
	overlay netip.Addr
	// via lists sites to send to, best first: the site itself if there are
	// paths to it, else the hubs.
	via []uint16
}

// snapshot is one applied revision, ready for the packet path. It is immutable.
type snapshot struct {
	config  *configs.Config
	rev     uint64
	version uint32 // rules version that flows carry
	self    uint16
	routes  bart.Table[route]
	sites   []siteRoute
	ports   []attachedPort
	devices []*deviceState
	classes *path.Classes
	rules   *policy.Ruleset
	index   map[string]uint16 // of sites, by name
	// steering is what is known of the paths, in this revision's numbering of
	// sites; never nil once the snapshot is published.
	steering atomic.Pointer[steering]
	// source answers ICMP errors toward the WAN: the first LAN address of each
	// family, else the overlay address.
	source4, source6 netip.Addr
	hits             []*policyHits        // by PolicyRef
	appliances       map[packet.Addr]bool // the other sites' overlay addresses
	// bands is the queue of the tunnel that each class goes to.
	bands []uint8
}

// band is the tunnel's queue for a class.
func (s *snapshot) band(class path.ClassID) uint8 { return s.bands[class] }

func (s *snapshot) lookup(a *packet.Addr) (route, bool) { return s.routes.Lookup(a.Netip()) }

// reachedVia reports whether packets of site may arrive over a path from peer.
func (s *snapshot) reachedVia(site, peer uint16) bool {
	for _, v := range s.sites[site].via {
		if v == peer {
			return true
		}
	}
	return false
}

// newSnapshot compiles what a configuration says about routes. Ports and
// devices have been opened by the caller.
func newSnapshot(cfg *configs.Config, rev uint64, ports []attachedPort, devices []*deviceState, classes *path.Classes, rules *policy.Ruleset) *snapshot {
	s := &snapshot{config: cfg, rev: rev, ports: ports, devices: devices, classes: classes, rules: rules, appliances: map[packet.Addr]bool{}}
	for id := range classes.Len() {
		band := tunnel.Rest
		if classes.Name(path.ClassID(id)) == path.VoiceClass {
			band = tunnel.Voice
		}
		s.bands = append(s.bands, band)
	}
	s.index = make(map[string]uint16, len(cfg.Sites))
	for i := range cfg.Sites {
		site := &cfg.Sites[i]
		s.index[site.Name] = uint16(i)
		s.sites = append(s.sites, siteRoute{name: site.Name, overlay: cfg.OverlayAddress(site)})
	}
	s.self = s.index[cfg.Site]
	s.routeSites()
	s.routeOwn()
	for i, d := range devices {
		for _, p := range d.config.AllowedIPs {
			s.routes.Insert(p, route{kind: routeDevice, device: uint16(i)})
		}
	}
	return s
}

// routeSites adds the prefixes of the other sites.
func (s *snapshot) routeSites() {
	for i := range s.sites {
		if uint16(i) == s.self {
			continue
		}
		for _, next := range s.config.NextSites(s.sites[i].name) {
			s.sites[i].via = append(s.sites[i].via, s.index[next.Name])
		}
		s.appliances[packet.AddrFrom(s.sites[i].overlay)] = true
		r := route{kind: routeSite, site: uint16(i)}
		for _, p := range s.config.Sites[i].Prefixes {
			s.routes.Insert(p, r)
		}
		s.routes.Insert(host(s.sites[i].overlay), r)
	}
}

// routeOwn adds our own prefixes: what is on link, what static routes say, and
// the appliance's own addresses. The rest of a site prefix goes to the first
// tun port, behind which the kernel routes on, and is unreachable without one.
func (s *snapshot) routeOwn() {
	rest := route{kind: routeUnreachable}
	for i, p := range s.ports {
		if p.config.Kind == configs.LANTUN {
			rest = route{kind: routeLAN, port: uint16(i)}
			break
		}
	}
	for _, p := range s.config.Sites[s.self].Prefixes {
		s.routes.Insert(p, rest)
	}
	for i, p := range s.ports {
		for _, a := range p.config.Addresses {
			s.routes.Insert(a.Masked(), route{kind: routeLAN, port: uint16(i)})
		}
		for _, r := range p.config.Routes {
			s.routes.Insert(r.Prefix, route{kind: routeLAN, port: uint16(i), nextHop: packet.AddrFrom(r.Via)})
		}
	}
	s.ownAddress(s.sites[s.self].overlay)
	for _, p := range s.ports {
		// A tun port's addresses are the kernel's: it answers for them.
		if p.config.Kind == configs.LANTUN {
			s.useAsSource(p.config.Addresses)
			continue
		}
		for _, a := range p.config.Addresses {
			s.ownAddress(a.Addr())
		}
		s.useAsSource(p.config.Addresses)
	}
}

func (s *snapshot) ownAddress(a netip.Addr) {
	s.routes.Insert(host(a), route{kind: routeHost})
}

func (s *snapshot) useAsSource(addresses []netip.Prefix) {
	for _, a := range addresses {
		switch {
		case a.Addr().Is4() && !s.source4.IsValid():
			s.source4 = a.Addr()
		case a.Addr().Is6() && !s.source6.IsValid():
			s.source6 = a.Addr()
		}
	}
	if !s.source6.IsValid() {
		s.source6 = s.sites[s.self].overlay
	}
}

// source is the address we answer with on port p, or toward the WAN if p is nil.
func (s *snapshot) source(v4 bool, p *attachedPort) netip.Addr {
	if p != nil {
		for _, a := range p.config.Addresses {
			if a.Addr().Is4() == v4 {
				return a.Addr()
			}
		}
	}
	if v4 {
		return s.source4
	}
	return s.source6
}

// attached is an open port as this revision has it, or nil.
func (s *snapshot) attached(p *portState) *attachedPort {
	for i := range s.ports {
		if s.ports[i].portState == p {
			return &s.ports[i]
		}
	}
	return nil
}

func host(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }
