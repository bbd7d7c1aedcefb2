package configs

import (
	"encoding/base64"
	"fmt"
	"net/netip"
	"strings"
	"time"
)

// The overhead of a tunnel on an inner packet, bytes: UDP 8 (RFC 768),
// WireGuard's data header and tag 32, our outer header 20, and the IP header.
const (
	overhead4 = 20 + 8 + 32 + 20
	overhead6 = 40 + 8 + 32 + 20
	// minInner is what every IPv6 link must carry (RFC 8200, 5).
	minInner = 1280
	maxMTU   = 65_535
)

// maxKeepalive is what WireGuard's 16 bits of seconds hold.
const maxKeepalive = Duration(65_535 * time.Second)

func (v *validator) sites() {
	if len(v.c.Sites) == 0 {
		v.bad(nil, "is missing: at least this appliance's own site", "sites")
	}
	v.owners = make(owners)
	v.keys = make(map[Key]string)
	seen := siteValues{
		names: make(map[string]bool), overlay: make(map[netip.Addr]string),
		paths: make(map[netip.Addr]string), endpoints: make(map[netip.AddrPort]string),
	}
	var claims []claim
	for i := range v.c.Sites {
		s := &v.c.Sites[i]
		v.name(s.Name, seen.names, "sites[%d].name", i)
		for j, p := range s.Prefixes {
			if !v.prefix(p, "sites[%d].prefixes[%d]", i, j) {
				continue
			}
			if why := reserved(p); why != "" {
				v.bad(p, why, "sites[%d].prefixes[%d]", i, j)
				continue
			}
			if _, taken := v.owners[p]; !taken {
				v.owners[p] = i
			}
			// A default route holds every other prefix, and the longest match
			// decides between them: it meets only another default route.
			if first, taken := v.owners[p]; p.Bits() == 0 && taken && first != i {
				v.bad(p, "is owned by site "+v.c.Sites[first].Name, "sites[%d].prefixes[%d]", i, j)
			}
			if p.Bits() > 0 {
				claims = append(claims, claim{p, "site " + s.Name, fmt.Sprintf("sites[%d].prefixes[%d]", i, j), len(claims)})
			}
		}
		if len(s.Uplinks) == 0 {
			v.bad(nil, "is missing: a site needs at least one uplink", "sites[%d].uplinks", i)
		}
		names := make(map[string]bool, len(s.Uplinks))
		for j := range s.Uplinks {
			v.name(s.Uplinks[j].Name, names, "sites[%d].uplinks[%d].name", i, j)
			v.uplink(&s.Uplinks[j], &seen, fmt.Sprintf("sites[%d].uplinks[%d]", i, j))
		}
	}
	v.overlaps(claims)
	for i := range v.c.Sites {
		v.overlay(i, seen.overlay)
	}
	v.ownUplinks()
	v.reachable()
}

// siteValues are the values that must be unique across sites, with the path
// of the first that has them.
type siteValues struct {
	names     map[string]bool
	overlay   map[netip.Addr]string
	paths     map[netip.Addr]string
	endpoints map[netip.AddrPort]string
}

// overlay checks the overlay address of a site, given or derived.
func (v *validator) overlay(i int, seen map[netip.Addr]string) {
	s := &v.c.Sites[i]
	a := v.c.OverlayAddress(s)
	if s.Address.IsValid() {
		host := netip.PrefixFrom(a, a.BitLen())
		switch why := reserved(host); {
		case a.Zone() != "" || a.IsUnspecified() || a.Is4In6():
			v.bad(a, "is not an address of a host", "sites[%d].address", i)
		case why != "" && !OverlayPrefix().Contains(a):
			v.bad(a, why, "sites[%d].address", i)
		}
		if owner, ok := v.owners.of(host); ok && owner != i {
			v.bad(a, "belongs to site "+v.c.Sites[owner].Name, "sites[%d].address", i)
		}
	}
	if first, taken := seen[a]; taken {
		v.bad(a, "is also the overlay address of "+first+": set another address", "sites[%d].address", i)
		return
	}
	seen[a] = "site " + s.Name
}

// publicKey checks a key and that nobody else has it.
func (v *validator) publicKey(k Key, owner, path string) {
	switch first, taken := v.keys[k]; {
	case k.IsZero():
		v.bad(nil, "is missing", "%s.public_key", path)
	case k.weak():
		v.bad(k, "is not a key: a point of low order or not in canonical form", "%s.public_key", path)
	case taken:
		v.bad(k, "is also the key of "+first+": each uplink and device needs its own", "%s.public_key", path)
	default:
		v.keys[k] = owner
	}
}

func (v *validator) uplink(u *Uplink, seen *siteValues, path string) {
	v.publicKey(u.PublicKey, path, path)
	for k, e := range u.Endpoints {
		at := fmt.Sprintf("%s.endpoints[%d]", path, k)
		if why := badEndpoint(e); why != "" {
			v.bad(e, why, "%s", at)
		} else if first, taken := seen.endpoints[e]; taken {
			v.bad(e, "is also "+first, "%s", at)
		} else {
			seen.endpoints[e] = at
		}
	}
	switch first, taken := seen.paths[u.Path()]; {
	case u.PathAddress.IsValid() && !validPath(u.PathAddress):
		v.bad(u.PathAddress, "is not from 240.0.0.1 to 254.255.255.255", "%s.path_address", path)
	case u.PublicKey.IsZero() && !u.PathAddress.IsValid(): // nothing to derive from
	case taken && v.keys[u.PublicKey] == path:
		v.bad(u.Path(), "is also the path address of "+first+
			": set path_address of one of them to a free one, the same in every site's file", "%s.path_address", path)
	case !taken:
		seen.paths[u.Path()] = path
	}
	if s := u.Source; s.IsValid() && (s.IsUnspecified() || s.IsMulticast() || s.Zone() != "" || s.Is4In6()) {
		v.bad(s, "is not an address of this host", "%s.source", path)
	}
	if u.Interface != "" && !isInterface(u.Interface) {
		v.bad(u.Interface, notInterface, "%s.interface", path)
	}
	overhead := overhead4
	for _, e := range u.Endpoints {
		if e.Addr().Is6() {
			overhead = overhead6
		}
	}
	if u.Source.Is6() {
		overhead = overhead6
	}
	if u.MTU < minInner+overhead {
		v.bad(u.MTU, fmt.Sprintf("is too small: a tunnel needs at least %d+%d", minInner, overhead), "%s.mtu", path)
	} else if u.MTU > maxMTU {
		v.bad(u.MTU, fmt.Sprintf("is too large: an IP packet has at most %d bytes", maxMTU), "%s.mtu", path)
	}
	v.keepalive(u.Keepalive, path)
}

// badEndpoint says why datagrams cannot be sent to e, "" if they can.
func badEndpoint(e netip.AddrPort) string {
	a := e.Addr()
	switch {
	case !a.IsValid() || a.IsUnspecified():
		return "is not an address to send to"
	case a.IsMulticast() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return "is not the address of one host"
	case a.Zone() != "" || a.IsLinkLocalUnicast() && a.Is6():
		return "is link-local: it means nothing to other sites"
	case a.Is4In6():
		return "is an IPv4 address in IPv6 form: write it as IPv4"
	case e.Port() == 0:
		return "has no port"
	}
	return ""
}

func (v *validator) keepalive(d Duration, path string) {
	switch {
	case d < 0 || d > maxKeepalive:
		v.bad(d, fmt.Sprintf("is out of range: 0s (off) to %s", maxKeepalive), "%s.keepalive", path)
	case d%Duration(time.Second) != 0:
		v.bad(d, "is not whole seconds", "%s.keepalive", path)
	}
}

// ownUplinks checks what matters only for the uplinks that this appliance opens.
func (v *validator) ownUplinks() {
	for i := range v.c.Sites {
		if v.self != &v.c.Sites[i] {
			continue
		}
		files := make(map[string]string)
		for j := range v.self.Uplinks {
			u := &v.self.Uplinks[j]
			path := fmt.Sprintf("sites[%d].uplinks[%d]", i, j)
			switch first, taken := files[u.PrivateKeyFile]; {
			case u.PrivateKeyFile == "":
				v.bad(nil, "is missing: this is the appliance's own site", "%s.private_key_file", path)
			case looksLikeKey(u.PrivateKeyFile):
				v.bad(nil, "holds a key: put it into a file of mode 0600 and name the file", "%s.private_key_file", path)
			case taken:
				v.bad(u.PrivateKeyFile, "is also the file of uplink "+first+": each uplink has its own key", "%s.private_key_file", path)
			}
			files[u.PrivateKeyFile] = u.Name
			for k := range j {
				if other := &v.self.Uplinks[k]; collide(u, other) {
					v.bad(u.ListenPort, "is also the port of uplink "+other.Name+
						": give them different ports, interfaces or sources", "%s.listen_port", path)
					break
				}
			}
		}
	}
}

// looksLikeKey reports whether a file name is a key that was pasted in its place.
func looksLikeKey(s string) bool {
	b, err := base64.StdEncoding.DecodeString(strings.TrimSpace(s))
	return err == nil && len(b) == len(Key{})
}

// collide reports whether the kernel would refuse to bind both sockets: the
// same port, with overlapping interfaces and overlapping addresses.
func collide(a, b *Uplink) bool {
	overlap := func(x, y string) bool { return x == "" || y == "" || x == y }
	addr := func(u *Uplink) string {
		if !u.Source.IsValid() {
			return ""
		}
		return u.Source.String()
	}
	return a.ListenPort != 0 && a.ListenPort == b.ListenPort &&
		overlap(a.Interface, b.Interface) && overlap(addr(a), addr(b))
}

// reachable checks that a site that cannot be called has a peer that can. Two
// sites behind NATs have no path to each other: a hub is for that.
func (v *validator) reachable() {
	if v.self == nil || hasEndpoint(v.self) {
		return
	}
	first := -1
	for i := range v.c.Sites {
		s := &v.c.Sites[i]
		if !v.c.adjacent(v.c.Site, s.Name) || len(s.Uplinks) == 0 {
			continue
		}
		if hasEndpoint(s) {
			return
		}
		if first < 0 {
			first = i
		}
	}
	if first >= 0 {
		v.bad(nil, fmt.Sprintf("neither %s nor %s has endpoints: no path between them can come up", v.c.Site, v.c.Sites[first].Name),
			"sites[%d].uplinks", first)
	}
}

func hasEndpoint(s *Site) bool {
	for i := range s.Uplinks {
		if len(s.Uplinks[i].Endpoints) > 0 {
			return true
		}
	}
	return false
}
