package policy

import (
	"cmp"
	"slices"

	"patronus/netstack/packet"
)

// term is a rule with one of its ports: what the packet path walks. It is 32
// bytes, so that two share a cache line; terms of one rule are neighbours.
type term struct {
	first  uint16 // of the ports
	span   uint16 // last - first
	proto  uint8  // 0: any
	action Action
	kind   termKind
	peers  uint32 // audience, or none
	name   uint32 // of a port, 0: by number
	policy PolicyRef
	index  int32
	cidrs  *ranges
}

type termKind uint8

const (
	everyone termKind = 1 << iota // any peer
	byCIDR                        // cidrs is set
	byName                        // name is set
)

// terms lays a rule out.
func (r *rule) terms(out []term) []term {
	t := term{span: 65535, action: r.action, peers: r.peers, policy: r.policy, index: r.index, cidrs: r.cidrs}
	if r.everyone {
		t.kind |= everyone
	}
	if r.cidrs != nil {
		t.kind |= byCIDR
	}
	if len(r.ports) == 0 {
		return append(out, t)
	}
	for _, p := range r.ports {
		u := t
		u.proto = p.proto
		if p.name != 0 {
			u.kind |= byName
			u.name = p.name
		} else {
			u.first, u.span = p.first, p.last-p.first
		}
		out = append(out, u)
	}
	return out
}

func (t *term) matches(q *query) bool {
	if t.proto != q.proto && t.proto != 0 || q.port-t.first > t.span {
		return false
	}
	if t.kind&byName != 0 && !q.names(t.name, t.proto) {
		return false
	}
	if t.kind&everyone != 0 || q.peer.has(t.peers) {
		return true
	}
	return t.kind&byCIDR != 0 && t.cidrs.contains(q.addr)
}

// tiers are terms in the order they are asked.
type tiers struct {
	terms   []term // of the Admin tier, of NetworkPolicies, of the Baseline tier
	admin   int32  // end of the Admin tier's
	network int32  // end of the NetworkPolicies'
}

// program is what decides one direction for one identity. It never changes.
//
// A long program is cut by destination port: bounds are the first (protocol,
// port) of each part, and a part has the terms that can match there.
type program struct {
	isolating PolicyRef
	all       tiers
	bounds    []uint32
	parts     []tiers
}

// open is the program of an identity that no policy selects.
var open = &program{isolating: NoPolicy}

// answer is one side's verdict.
type answer struct {
	allowed bool
	reason  Reason
	policy  PolicyRef
	rule    int32
}

// decide runs the tiers in order: Admin, NetworkPolicy, Baseline, default.
func (p *program) decide(q *query) answer {
	t := &p.all
	if len(p.bounds) > 0 {
		t = p.part(q)
	}
	out := answer{true, NotIsolated, NoPolicy, -1}
	for i := range t.terms[:t.admin] {
		if x := &t.terms[i]; x.matches(q) {
			if x.action != Pass {
				return x.answer()
			}
			out = x.answer()
			break
		}
	}
	if p.isolating != NoPolicy {
		for i := int(t.admin); i < int(t.network); i++ {
			if x := &t.terms[i]; x.matches(q) {
				return x.answer()
			}
		}
		return answer{false, IsolatedNoMatch, p.isolating, -1}
	}
	for i := int(t.network); i < len(t.terms); i++ {
		if x := &t.terms[i]; x.matches(q) {
			return x.answer()
		}
	}
	return out
}

func (t *term) answer() answer {
	switch t.action {
	case Deny:
		return answer{false, DeniedByRule, t.policy, t.index}
	case Pass:
		return answer{true, PassedToDefault, t.policy, t.index}
	}
	return answer{true, AllowedByRule, t.policy, t.index}
}

func place16(proto uint8, port uint16) uint32 { return uint32(proto)<<16 | uint32(port) }

func (p *program) part(q *query) *tiers {
	at := place16(q.proto, q.port)
	lo, hi := 0, len(p.bounds)
	for lo < hi {
		m := int(uint(lo+hi) / 2)
		if p.bounds[m] <= at {
			lo = m + 1
		} else {
			hi = m
		}
	}
	return &p.parts[lo-1] // the first bound is 0
}

// program lays the rules of policies, in order, out for one direction.
func (c *Compiler) program(list []int32, d Direction) *program {
	n, any := 0, false
	for _, ref := range list {
		n += len(c.policies[ref].terms[d])
		any = any || c.policies[ref].applies[d]
	}
	if !any {
		return open
	}
	p := &program{isolating: NoPolicy, all: tiers{terms: make([]term, 0, n)}}
	for _, ref := range list {
		x := c.policies[ref]
		if !x.applies[d] {
			continue
		}
		if x.tier == NetworkTier && p.isolating == NoPolicy {
			p.isolating = PolicyRef(ref)
		}
		p.all.terms = append(p.all.terms, x.terms[d]...)
		if x.tier <= AdminTier {
			p.all.admin = int32(len(p.all.terms))
		}
		if x.tier <= NetworkTier {
			p.all.network = int32(len(p.all.terms))
		}
	}
	p.cut()
	return p
}

// Programs shorter than cutAbove are walked; cutting must not make the terms
// more than cutGrowth times as many.
const (
	cutAbove  = 12
	cutGrowth = 6
)

// cut builds the parts of a long program.
func (p *program) cut() {
	terms := p.all.terms
	if len(terms) <= cutAbove {
		return
	}
	bounds := []uint32{0}
	for _, proto := range []uint8{packet.TCP, packet.UDP, packet.SCTP} {
		bounds = append(bounds, place16(proto, 0), place16(proto+1, 0))
		for i := range terms {
			if t := &terms[i]; t.proto == proto && t.kind&byName == 0 {
				bounds = append(bounds, place16(proto, t.first), place16(proto, t.first)+uint32(t.span)+1)
			}
		}
	}
	slices.SortFunc(bounds, func(a, b uint32) int { return cmp.Compare(a, b) })
	bounds = slices.Compact(bounds)
	parts := make([]tiers, 0, len(bounds))
	pool := make([]term, 0, cutGrowth*len(terms))
	for _, b := range bounds {
		start := len(pool)
		var part tiers
		for i := range terms {
			if t := &terms[i]; t.covers(b) {
				if len(pool) == cap(pool) {
					return
				}
				pool = append(pool, *t)
			}
			if i == int(p.all.admin)-1 {
				part.admin = int32(len(pool) - start)
			}
			if i == int(p.all.network)-1 {
				part.network = int32(len(pool) - start)
			}
		}
		part.terms = pool[start:len(pool):len(pool)]
		parts = append(parts, part)
	}
	p.bounds, p.parts = bounds, parts
}

// covers reports whether the term can match at the start of a part. A part has
// no bound of the term inside, so that is whether it can match in it at all.
func (t *term) covers(at uint32) bool {
	proto, port := uint8(at>>16), uint16(at)
	if t.proto == 0 {
		return true
	}
	return t.proto == proto && port-t.first <= t.span
}
