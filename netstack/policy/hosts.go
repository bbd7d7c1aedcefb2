package policy

import (
	"encoding/binary"
	"math/bits"
	"math/rand/v2"
	"slices"

	"patronus/netstack/packet"
)

// hosts finds the endpoint of a single address: almost all endpoints have
// single addresses, and a hash costs a third of a walk down a trie. It is cut
// in shards that are replaced, never written, so that a ruleset and its
// successor share all but one.
type hosts struct {
	k0, k1 uint64 // secret, so that nobody can choose addresses that collide
	shards [][]slot
}

// slot is one place of a shard: open addressing, at most half full.
type slot struct {
	addr packet.Addr
	loc  location // location.identity is one more than it says; 0: free
}

const hostShards = 1024

func newHosts() hosts {
	return hosts{k0: rand.Uint64(), k1: rand.Uint64(), shards: make([][]slot, hostShards)}
}

func (h *hosts) hash(a *packet.Addr) uint64 {
	hi, lo := bits.Mul64(binary.LittleEndian.Uint64(a[:8])^h.k0, binary.LittleEndian.Uint64(a[8:])^h.k1)
	return hi ^ lo
}

func (h *hosts) lookup(a *packet.Addr) (location, bool) {
	x := h.hash(a)
	shard := h.shards[x%hostShards]
	mask := uint64(len(shard) - 1)
	for i := x / hostShards; len(shard) > 0; i++ {
		s := &shard[i&mask]
		if s.loc.identity == 0 {
			break
		}
		if s.addr == *a {
			return location{s.loc.identity - 1, s.loc.endpoint}, true
		}
	}
	return location{}, false
}

// replace gives an address a location, or takes it away. The slice of shards
// must be the caller's own.
func (h *hosts) replace(a *packet.Addr, loc location, on bool) {
	x := h.hash(a)
	entries := make([]slot, 0, 16)
	for _, s := range h.shards[x%hostShards] {
		if s.loc.identity != 0 && s.addr != *a {
			entries = append(entries, s)
		}
	}
	if on {
		entries = append(entries, slot{*a, location{loc.identity + 1, loc.endpoint}})
	}
	if len(entries) == 0 {
		h.shards[x%hostShards] = nil
		return
	}
	shard := make([]slot, 2<<bits.Len(uint(len(entries)-1)))
	mask := uint64(len(shard) - 1)
	for _, e := range entries {
		i := h.hash(&e.addr) / hostShards
		for shard[i&mask].loc.identity != 0 {
			i++
		}
		shard[i&mask] = e
	}
	h.shards[x%hostShards] = shard
}

func (h *hosts) clone() hosts {
	out := *h
	out.shards = slices.Clone(h.shards)
	return out
}
