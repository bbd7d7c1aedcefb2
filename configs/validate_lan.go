package configs

import (
	"fmt"
	"net/netip"
)

// maxVLAN is the last usable VLAN identifier (IEEE 802.1Q: 4095 is reserved).
const maxVLAN = 4094

func (v *validator) lan() {
	names := make(map[string]bool)
	wires := make(map[string]string)       // interface and VLAN -> port
	addresses := make(map[netip.Addr]bool) // of the appliance
	routes := make(map[netip.Prefix]string)
	var claims []claim
	for i := range v.c.LAN {
		p := &v.c.LAN[i]
		v.name(p.Name, names, "lan[%d].name", i)
		v.wire(p, wires, i)
		if p.MTU < minInner || p.MTU > maxMTU {
			v.bad(p.MTU, fmt.Sprintf("is not from %d (the least that IPv6 allows) to %d", minInner, maxMTU), "lan[%d].mtu", i)
		}
		nets := make(map[netip.Prefix]bool) // two addresses in one network of a port are fine
		for j, a := range p.Addresses {
			if !v.lanAddress(p, a, i, j) {
				continue
			}
			if addresses[a.Addr()] {
				v.bad(a, "is given twice", "lan[%d].addresses[%d]", i, j)
			}
			addresses[a.Addr()] = true
			if n := a.Masked(); !a.IsSingleIP() && !nets[n] {
				nets[n] = true
				claims = append(claims, claim{n, "LAN port " + p.Name, fmt.Sprintf("lan[%d].addresses[%d]", i, j), len(claims)})
			}
		}
		for j, r := range p.Routes {
			v.route(p, r, routes, fmt.Sprintf("lan[%d].routes[%d]", i, j))
		}
	}
	v.overlaps(claims)
}

// wire checks what the port is attached to.
func (v *validator) wire(p *LANPort, wires map[string]string, i int) {
	switch p.Kind {
	case LANTUN, LANPacket:
		if p.Interface == "" {
			v.bad(nil, fmt.Sprintf("is missing: a %s port needs one", p.Kind), "lan[%d].interface", i)
		} else if !isInterface(p.Interface) {
			v.bad(p.Interface, notInterface, "lan[%d].interface", i)
		}
	case LANCable:
		if p.Interface != "" {
			v.bad(p.Interface, "means nothing: a cable port is in memory", "lan[%d].interface", i)
		}
	case "":
		v.bad(nil, "is missing: tun, packet or cable", "lan[%d].kind", i)
	default:
		v.bad(p.Kind, "is not a kind of port: tun, packet or cable", "lan[%d].kind", i)
	}
	switch {
	case p.VLAN > maxVLAN:
		v.bad(p.VLAN, fmt.Sprintf("is not a VLAN: 1 to %d, 0 for untagged", maxVLAN), "lan[%d].vlan", i)
	case p.VLAN != 0 && p.Kind != LANPacket:
		v.bad(p.VLAN, "means nothing here: only packet ports carry VLANs", "lan[%d].vlan", i)
	}
	if p.Interface == "" {
		return
	}
	wire := fmt.Sprintf("%s.%d", p.Interface, p.VLAN)
	if first, taken := wires[wire]; taken {
		v.bad(p.Interface, "is taken by LAN port "+first+": ports of one interface need different VLANs", "lan[%d].interface", i)
		return
	}
	wires[wire] = p.Name
	if p.Kind == LANPacket && len(p.Addresses) == 0 {
		v.bad(nil, "is missing: hosts need an address to ask for", "lan[%d].addresses", i)
	}
}

// lanAddress checks an address of the appliance on a port, written with the
// length of the port's network, and reports whether it can be used.
func (v *validator) lanAddress(p *LANPort, a netip.Prefix, i, j int) bool {
	const path = "lan[%d].addresses[%d]"
	switch why := ""; {
	case !a.IsValid() || a.Addr().IsUnspecified() || a.Addr().Is4In6():
		v.bad(a, "is not an address with the length of its network, such as 10.1.0.1/24", path, i, j)
		return false
	case p.Kind == LANPacket && a.IsSingleIP():
		v.bad(a, "leaves no room for hosts: give the length of the network, such as /24", path, i, j)
		return false
	case isNetwork(a):
		v.bad(a, "is the network itself: give an address in it", path, i, j)
		return false
	case isBroadcast(a):
		v.bad(a, "is the broadcast address of its network", path, i, j)
		return false
	default:
		if why = reserved(a); why != "" {
			v.bad(a, why, path, i, j)
			return false
		}
	}
	v.inOwn(netip.PrefixFrom(a.Addr(), a.Addr().BitLen()), path, i, j)
	return true
}

// isNetwork: the all-zero host is the network in IPv4 (RFC 1122, 3.2.1.3) and
// an anycast address in IPv6 (RFC 4291, 2.6.1), but not on point-to-point
// links (RFC 3021, RFC 6164).
func isNetwork(a netip.Prefix) bool {
	return a.Bits() < a.Addr().BitLen()-1 && a.Addr() == a.Masked().Addr()
}

func isBroadcast(a netip.Prefix) bool {
	if !a.Addr().Is4() || a.Bits() >= 31 {
		return false
	}
	next := a.Addr().Next()
	return !next.IsValid() || !a.Masked().Contains(next)
}

func (v *validator) route(p *LANPort, r Route, seen map[netip.Prefix]string, path string) {
	if v.prefix(r.Prefix, "%s.prefix", path) {
		if first, taken := seen[r.Prefix]; taken {
			v.bad(r.Prefix, "has a route already, by LAN port "+first, "%s.prefix", path)
		} else if seen[r.Prefix] = p.Name; r.Prefix.Bits() > 0 {
			v.inOwn(r.Prefix, "%s.prefix", path)
		}
	}
	if !r.Via.IsValid() {
		v.bad(nil, "is missing: the address of the next hop", "%s.via", path)
		return
	}
	if r.Prefix.IsValid() && r.Via.Is4() != r.Prefix.Addr().Is4() {
		v.bad(r.Via, "is of another family than the prefix", "%s.via", path)
		return
	}
	onLink := false
	for _, a := range p.Addresses {
		if a.Addr() == r.Via {
			v.bad(r.Via, "is the appliance itself", "%s.via", path)
			return
		}
		onLink = onLink || a.IsValid() && a.Masked().Contains(r.Via)
	}
	if !onLink {
		v.bad(r.Via, fmt.Sprintf("is not on the link: no network of LAN port %s holds it", p.Name), "%s.via", path)
	}
}

func (v *validator) devices() {
	names := make(map[string]bool)
	var claims []claim
	for i := range v.c.Devices {
		d := &v.c.Devices[i]
		path := fmt.Sprintf("devices[%d]", i)
		v.name(d.Name, names, "%s.name", path)
		v.publicKey(d.PublicKey, "device "+d.Name, path)
		switch {
		case d.Uplink == "":
			v.bad(nil, "is missing: say which uplink the device calls", "%s.uplink", path)
		case v.self != nil && !v.hasUplink(d.Uplink):
			v.bad(d.Uplink, "is no uplink of site "+v.c.Site, "%s.uplink", path)
		}
		if d.Endpoint.IsValid() {
			if why := badEndpoint(d.Endpoint); why != "" {
				v.bad(d.Endpoint, why, "%s.endpoint", path)
			}
		}
		v.keepalive(d.Keepalive, path)
		if len(d.AllowedIPs) == 0 {
			v.bad(nil, "is missing: the device needs at least one address", "%s.allowed_ips", path)
		}
		for j, p := range d.AllowedIPs {
			if !v.prefix(p, "%s.allowed_ips[%d]", path, j) {
				continue
			}
			at := fmt.Sprintf("%s.allowed_ips[%d]", path, j)
			claims = append(claims, claim{p, "device " + d.Name, at, len(claims)})
			if why := reserved(p); why != "" {
				v.bad(p, why, "%s", at)
			} else if port := v.onLAN(p); port != "" {
				v.bad(p, "is in the network of LAN port "+port+", where hosts would look for it on the link", "%s", at)
			} else {
				v.inOwn(p, "%s", at)
			}
		}
	}
	v.overlaps(claims)
}

func (v *validator) hasUplink(name string) bool {
	for i := range v.self.Uplinks {
		if v.self.Uplinks[i].Name == name {
			return true
		}
	}
	return false
}

// onLAN names the port in whose network p lies, "" if there is none.
func (v *validator) onLAN(p netip.Prefix) string {
	for i := range v.c.LAN {
		for _, a := range v.c.LAN[i].Addresses {
			if a.IsValid() && a.Masked().Overlaps(p) {
				return v.c.LAN[i].Name
			}
		}
	}
	return ""
}
