package simulate

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"sort"

	"patronus/configs"
	"patronus/netstack/packet"
	"patronus/netstack/policy"
)

// Ports is a range of destination ports of a protocol in which no policy and no
// named port tells one from another. For protocols without ports it is 0.
type Ports struct {
	Protocol uint8
	First    uint16
	Last     uint16
}

// Group is a set of addresses that no policy can tell apart: endpoints, or
// addresses in no endpoint.
type Group struct {
	// Endpoints are "namespace/name", sorted; none means addresses in no endpoint.
	Endpoints []string
	Sites     []string     // of the endpoints, sorted
	Addr      netip.Addr   // one of them, for a flow as proof
	Member    string       // the endpoint that has Addr
	Prefix    netip.Prefix // of a group in no endpoint: the smallest block of a policy that has it, or the family

	before, after policy.Subject
}

// Name is how tables call the group.
func (g *Group) Name() string {
	switch n := len(g.Endpoints); {
	case n == 0 && g.Prefix.Bits() == 0 && g.Addr.Is6():
		return "any other IPv6"
	case n == 0 && g.Prefix.Bits() == 0:
		return "any other IPv4"
	case n == 0:
		return "others in " + g.Prefix.String()
	case n == 1:
		return g.Endpoints[0]
	default:
		return fmt.Sprintf("%s +%d", g.Endpoints[0], n-1)
	}
}

// universe is all that a set of policies can tell apart.
type universe struct {
	groups []Group
	ports  []Ports
}

// point is the first address of an interval, ordered as numbers: IPv4 (mapped)
// apart from IPv6.
type boundary = netip.Addr

// newUniverse cuts the address space at every endpoint and every block that a
// policy names, and puts together what no policy tells apart.
func newUniverse(in *policy.Input, policies []policy.Policy, before, after *policy.Ruleset) *universe {
	blocks := blocksOf(policies)
	cuts := map[boundary]struct{}{netip.IPv4Unspecified(): {}, netip.IPv6Unspecified(): {}}
	cut := func(p netip.Prefix) {
		p = unmapped(p)
		cuts[p.Addr()] = struct{}{}
		if next := lastOf(p).Next(); next.IsValid() {
			cuts[next] = struct{}{}
		}
	}
	for _, b := range blocks {
		cut(b)
	}
	for i := range in.Endpoints {
		for _, a := range in.Endpoints[i].Addresses {
			cut(a)
		}
	}
	points := make([]boundary, 0, len(cuts))
	for p := range cuts {
		points = append(points, p)
	}
	slices.SortFunc(points, netip.Addr.Compare)
	u := &universe{ports: portsOf(in, policies)}
	classes := newBlockClasses(blocks)
	byKey := map[string]int{}
	var key []byte
	for i, first := range points {
		e, known := after.Endpoint(first)
		s, t := before.SubjectOf(first), after.SubjectOf(first)
		key = append(key[:0], bit(first.Is4(), 4)|bit(known, 1))
		key = fmt.Appendf(key, "%d/", classes.of(first))
		key = after.AppendFingerprint(before.AppendFingerprint(key, s), t)
		g, ok := byKey[string(key)]
		if !ok {
			g = len(u.groups)
			byKey[string(key)] = g
			u.groups = append(u.groups, Group{before: s, after: t})
		}
		u.groups[g].take(first, i+1 < len(points), points[min(i+1, len(points)-1)], &e, known, blocks)
	}
	for i := range u.groups {
		g := &u.groups[i]
		slices.Sort(g.Endpoints)
		g.Endpoints = slices.Compact(g.Endpoints)
		slices.Sort(g.Sites)
		g.Sites = slices.Compact(g.Sites)
	}
	slices.SortFunc(u.groups, func(a, b Group) int {
		if c := cmp.Compare(bit(len(a.Endpoints) == 0, 1), bit(len(b.Endpoints) == 0, 1)); c != 0 {
			return c
		}
		return cmp.Or(slices.Compare(a.Endpoints, b.Endpoints), a.Addr.Compare(b.Addr))
	})
	return u
}

// Addresses that stand for the rest of the world: RFC 5737, RFC 3849.
var (
	documentation4 = netip.AddrFrom4([4]byte{203, 0, 113, 10})
	documentation6 = netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, 15: 10})
)

// take adds an interval from first up to next, or to the end of the family.
func (g *Group) take(first netip.Addr, bounded bool, next netip.Addr, e *configs.HostEndpoint, known bool, blocks []netip.Prefix) {
	bounded = bounded && next.Is4() == first.Is4()
	inside := func(a netip.Addr) bool {
		return a.Is4() == first.Is4() && a.Compare(first) >= 0 && (!bounded || a.Compare(next) < 0)
	}
	if known {
		g.Endpoints = append(g.Endpoints, e.Namespace+"/"+e.Name)
		if e.Site != "" {
			g.Sites = append(g.Sites, e.Site)
		}
		if !g.Addr.IsValid() {
			g.Addr, g.Member = first, e.Namespace+"/"+e.Name
		}
		return
	}
	g.Prefix = netip.PrefixFrom(first, 0).Masked()
	for _, b := range blocks {
		if b.Contains(first) && b.Bits() > g.Prefix.Bits() {
			g.Prefix = b
		}
	}
	for _, a := range [2]netip.Addr{documentation4, documentation6} {
		if inside(a) {
			g.Addr = a
		}
	}
	if g.Addr.IsValid() {
		return
	}
	g.Addr = first
	if a := first.Next(); inside(a) {
		g.Addr = a // the first address of a block is often a network's own
	}
}

func unmapped(p netip.Prefix) netip.Prefix {
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p.Masked()
}

func lastOf(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := range b {
		if free := (i+1)*8 - p.Bits(); free > 0 {
			b[i] |= byte(1<<min(free, 8) - 1)
		}
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// blocksOf are the blocks and exceptions that policies name.
func blocksOf(policies []policy.Policy) []netip.Prefix {
	set := map[netip.Prefix]struct{}{}
	add := func(s string) {
		if p, err := netip.ParsePrefix(s); err == nil { // validated before
			set[p.Masked()] = struct{}{}
		}
	}
	for _, p := range policies {
		if p.Network != nil {
			for _, r := range peersOf(p.Network) {
				if r.IPBlock != nil {
					add(r.IPBlock.CIDR)
					for _, e := range r.IPBlock.Except {
						add(e)
					}
				}
			}
		} else {
			for i := range p.Cluster.Spec.Egress {
				for _, to := range p.Cluster.Spec.Egress[i].To {
					for _, n := range to.Networks {
						add(string(n))
					}
				}
			}
		}
	}
	out := make([]netip.Prefix, 0, len(set))
	for p := range set {
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b netip.Prefix) int {
		return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
	})
	return out
}

// blockClasses numbers the sets of blocks that addresses are in.
type blockClasses struct {
	starts  []netip.Addr
	classes []int
}

func newBlockClasses(blocks []netip.Prefix) *blockClasses {
	c := &blockClasses{starts: []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()}}
	for _, b := range blocks {
		c.starts = append(c.starts, b.Addr())
		if next := lastOf(b).Next(); next.IsValid() {
			c.starts = append(c.starts, next)
		}
	}
	slices.SortFunc(c.starts, netip.Addr.Compare)
	c.starts = slices.Compact(c.starts)
	seen := map[string]int{}
	for _, a := range c.starts {
		set := make([]byte, len(blocks)/8+1)
		for i, b := range blocks {
			if b.Contains(a) {
				set[i/8] |= 1 << (i % 8)
			}
		}
		n, ok := seen[string(set)]
		if !ok {
			n = len(seen)
			seen[string(set)] = n
		}
		c.classes = append(c.classes, n)
	}
	return c
}

func (c *blockClasses) of(a netip.Addr) int {
	i := sort.Search(len(c.starts), func(i int) bool { return c.starts[i].Compare(a) > 0 })
	return c.classes[i-1]
}

// portsOf cuts each protocol's ports where a policy or a named port does. One
// entry stands for all protocols that have no ports.
func portsOf(in *policy.Input, policies []policy.Policy) []Ports {
	cuts := map[uint32]struct{}{}
	cut := func(proto uint8, first, last uint16) {
		cuts[uint32(proto)<<17|uint32(first)] = struct{}{}
		cuts[uint32(proto)<<17|(uint32(last)+1)] = struct{}{}
	}
	for _, proto := range [3]uint8{packet.TCP, packet.UDP, packet.SCTP} {
		cut(proto, 0, 65535)
	}
	for i := range in.Endpoints {
		for _, p := range in.Endpoints[i].Ports {
			if proto, err := policy.ParseProtocol(p.Protocol); err == nil && p.Port > 0 {
				cut(proto, p.Port, p.Port)
			}
		}
	}
	for _, p := range policies {
		eachPort(p.Object, cut)
	}
	bounds := make([]uint32, 0, len(cuts))
	for c := range cuts {
		bounds = append(bounds, c)
	}
	slices.Sort(bounds)
	var out []Ports
	for i := 0; i+1 < len(bounds); i++ {
		first, end := bounds[i], bounds[i+1]
		if first>>17 == end>>17 && hasPorts(uint8(first>>17)) {
			out = append(out, Ports{uint8(first >> 17), uint16(first & (1<<17 - 1)), uint16(end&(1<<17-1) - 1)})
		}
	}
	return append(out, Ports{Protocol: packet.ICMP})
}

func hasPorts(proto uint8) bool {
	return proto == packet.TCP || proto == packet.UDP || proto == packet.SCTP
}

// witness is a port to ask for: not 0, which no flow has.
func (p *Ports) witness() uint16 {
	if p.First == 0 && p.Last > 0 {
		return 1
	}
	return p.First
}
