package policy

import (
	"cmp"
	"encoding/binary"
	"math/bits"
	"net/netip"
	"slices"

	"patronus/netstack/packet"
)

// number is an address as a 128-bit number; IPv4 keeps its own family.
type number struct{ hi, lo uint64 }

func (a number) compare(b number) int {
	if c := cmp.Compare(a.hi, b.hi); c != 0 {
		return c
	}
	return cmp.Compare(a.lo, b.lo)
}

func (a number) next() number {
	lo, carry := bits.Add64(a.lo, 1, 0)
	return number{a.hi + carry, lo}
}

func (a number) previous() number {
	lo, borrow := bits.Sub64(a.lo, 1, 0)
	return number{a.hi - borrow, lo}
}

// span is an inclusive range of addresses.
type span struct{ first, last number }

func spanOf(p netip.Prefix) span {
	p = p.Masked()
	width := 128
	var first number
	if p.Addr().Is4() {
		width = 32
		b := p.Addr().As4()
		first.lo = uint64(binary.BigEndian.Uint32(b[:]))
	} else {
		b := p.Addr().As16()
		first = number{binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])}
	}
	last := first
	switch free := width - p.Bits(); {
	case free == 128:
		last = number{^uint64(0), ^uint64(0)}
	case free >= 64:
		last.hi |= 1<<(free-64) - 1
		last.lo = ^uint64(0)
	default:
		last.lo |= 1<<free - 1
	}
	return span{first, last}
}

// block is a prefix without the prefixes it excepts.
type block struct {
	cidr   netip.Prefix
	except []netip.Prefix
}

// ranges is a set of addresses: sorted, disjoint spans per family. It answers
// in O(log n) however blocks and exceptions overlap, and never changes.
type ranges struct {
	v4 []span4
	v6 []span
}

type span4 struct{ first, last uint32 }

// newRanges is the union of blocks; nil if there is none.
func newRanges(blocks []block) *ranges {
	if len(blocks) == 0 {
		return nil
	}
	var v4, v6 []span
	for _, b := range blocks {
		spans := subtract(spanOf(b.cidr), b.except)
		if b.cidr.Addr().Is4() {
			v4 = append(v4, spans...)
		} else {
			v6 = append(v6, spans...)
		}
	}
	r := &ranges{v6: v6}
	for _, s := range v4 {
		r.v4 = append(r.v4, span4{uint32(s.first.lo), uint32(s.last.lo)})
	}
	return r.normal()
}

func subtract(s span, except []netip.Prefix) []span {
	holes := make([]span, len(except))
	for i, e := range except {
		holes[i] = spanOf(e)
	}
	var out []span
	for _, h := range union(holes) {
		if h.first.compare(s.first) > 0 {
			out = append(out, span{s.first, h.first.previous()})
		}
		if h.last.compare(s.last) >= 0 {
			return out
		}
		s.first = h.last.next()
	}
	return append(out, s)
}

func union(spans []span) []span {
	slices.SortFunc(spans, func(a, b span) int { return a.first.compare(b.first) })
	out := spans[:0]
	for _, s := range spans {
		if n := len(out); n > 0 && s.first.compare(out[n-1].last) <= 0 {
			if s.last.compare(out[n-1].last) > 0 {
				out[n-1].last = s.last
			}
			continue
		}
		out = append(out, s)
	}
	return out
}

// normal is r with its spans sorted and disjoint.
func (r *ranges) normal() *ranges {
	v4 := make([]span, len(r.v4))
	for i, s := range r.v4 {
		v4[i] = span{number{0, uint64(s.first)}, number{0, uint64(s.last)}}
	}
	out := &ranges{v6: union(r.v6)}
	for _, s := range union(v4) {
		out.v4 = append(out.v4, span4{uint32(s.first.lo), uint32(s.last.lo)})
	}
	return out
}

func (r *ranges) contains(a *packet.Addr) bool {
	if a.Is4() {
		v := binary.BigEndian.Uint32(a[12:])
		lo, hi := 0, len(r.v4)
		for lo < hi {
			m := (lo + hi) / 2
			if r.v4[m].last < v {
				lo = m + 1
			} else {
				hi = m
			}
		}
		return lo < len(r.v4) && r.v4[lo].first <= v
	}
	v := number{binary.BigEndian.Uint64(a[:8]), binary.BigEndian.Uint64(a[8:])}
	lo, hi := 0, len(r.v6)
	for lo < hi {
		m := (lo + hi) / 2
		if r.v6[m].last.compare(v) < 0 {
			lo = m + 1
		} else {
			hi = m
		}
	}
	return lo < len(r.v6) && r.v6[lo].first.compare(v) <= 0
}
