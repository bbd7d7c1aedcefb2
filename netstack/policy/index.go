package policy

import (
	"math/bits"
	"slices"

	"patronus/netstack/packet"
)

// Programs of at most indexAbove terms are walked. An index may repeat terms,
// in each range of ports that they cover, up to indexGrowth times their number.
const (
	indexAbove  = 12
	indexGrowth = 8
)

// index finds the first matching term of a long program without walking it:
// by destination port it finds the lists of terms that match that port, and in
// each list the first term whose peers have the peer.
type index struct {
	bounds []uint32   // the first protocol<<16|port of each part, ascending from 0
	parts  [][3]peers // by bound and Tier: terms by port number
	names  []named    // terms by port name
}

type named struct {
	name  uint32
	proto uint8 // 0: any
	peers [3]peers
}

// peers finds, among terms that match the port, the first that has the peer.
type peers struct {
	everyone int32 // order of the first term that matches any peer, or never
	// off is the first word of mask, the audiences of the terms. ranks counts
	// the audiences before each word; orders has by rank the first term that
	// names the audience.
	off    uint32
	mask   []uint64
	ranks  []int32
	orders []int32
	// cidrs is the union of what the terms byCIDR contain.
	cidrs  *ranges
	byCIDR []int32
}

const never = int32(1<<31 - 1)

func portKey(proto uint8, port uint16) uint32 { return uint32(proto)<<16 | uint32(port) }

func (x *index) first(tier Tier, terms []term, q *query) *term {
	at := portKey(q.proto, q.port)
	lo, hi := 0, len(x.bounds)
	for lo < hi {
		m := int(uint(lo+hi) / 2)
		if x.bounds[m] <= at {
			lo = m + 1
		} else {
			hi = m
		}
	}
	best := x.parts[lo-1][tier].first(never, terms, q)
	if len(x.names) > 0 {
		for _, p := range q.ports {
			if p.port != q.port || p.proto != q.proto {
				continue
			}
			for i := range x.names {
				if n := &x.names[i]; n.name == p.name && (n.proto == 0 || n.proto == p.proto) {
					best = n.peers[tier].first(best, terms, q)
				}
			}
		}
	}
	if best == never {
		return nil
	}
	return &terms[best]
}

// first is the order of the first term that has the peer, if it is below best;
// otherwise it is best.
func (p *peers) first(best int32, terms []term, q *query) int32 {
	best = min(best, p.everyone)
	if int(p.off) < len(q.peer) {
		row := q.peer[p.off:]
		for w, m := range p.mask[:min(len(p.mask), len(row))] {
			for hit := row[w] & m; hit != 0; hit &= hit - 1 {
				before := m & (hit&-hit - 1)
				best = min(best, p.orders[p.ranks[w]+int32(bits.OnesCount64(before))])
			}
		}
	}
	if len(p.byCIDR) > 0 && p.byCIDR[0] < best && p.cidrs.contains(q.addr) {
		for _, i := range p.byCIDR {
			if i >= best {
				break
			}
			if terms[i].cidrs.contains(q.addr) {
				return i
			}
		}
	}
	return best
}

// newIndex indexes a program of more than above terms; nil if it is better
// walked.
func newIndex(p *program, above int) *index {
	terms := p.terms
	if len(terms) <= above {
		return nil
	}
	x := &index{bounds: []uint32{0}}
	for _, proto := range []uint8{packet.TCP, packet.UDP, packet.SCTP} {
		x.bounds = append(x.bounds, portKey(proto, 0), portKey(proto+1, 0))
		for i := range terms {
			if t := &terms[i]; t.proto == proto && t.kind&byName == 0 {
				x.bounds = append(x.bounds, portKey(proto, t.first), portKey(proto, t.first)+uint32(t.span)+1)
			}
		}
	}
	slices.Sort(x.bounds)
	x.bounds = slices.Compact(x.bounds)
	budget := indexGrowth * max(len(terms), 8)
	for _, b := range x.bounds {
		part, n := p.choose(func(t *term) bool { return t.kind&byName == 0 && t.covers(b) })
		if budget -= n; budget < 0 {
			return nil
		}
		x.parts = append(x.parts, part)
	}
	for i := range terms {
		t := &terms[i]
		same := func(u *term) bool { return u.kind&byName != 0 && u.name == t.name && u.proto == t.proto }
		if t.kind&byName == 0 || slices.ContainsFunc(x.names, func(n named) bool { return n.name == t.name && n.proto == t.proto }) {
			continue
		}
		part, _ := p.choose(same)
		x.names = append(x.names, named{t.name, t.proto, part})
	}
	return x
}

// covers reports whether the term can match at the start of a part. A part has
// no bound of the term inside, so that is whether it matches all of it.
func (t *term) covers(at uint32) bool {
	return t.proto == 0 || t.proto == uint8(at>>16) && uint16(at)-t.first <= t.span
}

// choose indexes the terms that are wanted, by tier, and says how many they are.
func (p *program) choose(want func(*term) bool) (out [3]peers, n int) {
	for tier, ends := range [3][2]int32{{0, p.admin}, {p.admin, p.network}, {p.network, int32(len(p.terms))}} {
		var chosen []*term
		for i := ends[0]; i < ends[1]; i++ {
			if t := &p.terms[i]; want(t) {
				chosen = append(chosen, t)
			}
		}
		n += len(chosen)
		out[tier] = newPeers(chosen)
	}
	return out, n
}

func newPeers(terms []*term) peers {
	p := peers{everyone: never}
	first := map[uint32]int32{} // by audience
	var union ranges
	for _, t := range terms {
		if t.kind&everyone != 0 {
			p.everyone = t.order
			break // what comes after it decides nothing
		}
		if t.kind&byCIDR != 0 {
			p.byCIDR = append(p.byCIDR, t.order)
			union.v4, union.v6 = append(union.v4, t.cidrs.v4...), append(union.v6, t.cidrs.v6...)
		}
		if _, ok := first[t.peers]; !ok && t.peers != none {
			first[t.peers] = t.order
		}
	}
	if len(p.byCIDR) > 0 {
		p.cidrs = union.normal()
	}
	if len(first) == 0 {
		return p
	}
	audiences := make([]uint32, 0, len(first))
	for a := range first {
		audiences = append(audiences, a)
	}
	slices.Sort(audiences)
	p.off = audiences[0] >> 6
	p.mask = make([]uint64, audiences[len(audiences)-1]>>6-p.off+1)
	p.ranks = make([]int32, len(p.mask))
	for rank, a := range audiences {
		w := a>>6 - p.off
		if p.mask[w] == 0 {
			p.ranks[w] = int32(rank)
		}
		p.mask[w] |= 1 << (a & 63)
		p.orders = append(p.orders, first[a])
	}
	return p
}
