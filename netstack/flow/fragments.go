package flow

import (
	"sync"
	"time"

	"patronus/netstack/packet"
)

// Bounds of [Fragments].
const (
	// FragmentLife is how long a datagram's later fragments are awaited. Hosts
	// wait up to 60 s (RFC 8200, 4.5); the fragments of one datagram travel
	// together, and a shorter life is less time for a reused identification.
	FragmentLife = 30 * time.Second

	fragmentWays = 8
	fragmentSets = 128
)

// Fragments remembers the ports of fragmented datagrams, so that their later
// fragments, which carry none, belong to the flow of the first (RFC 791, 3.2;
// RFC 8200, 4.5). It holds 1024 datagrams; a flood of fragments pushes out the
// oldest of eight.
//
// Remember a first fragment only if it was admitted: what follows it is then
// judged as what it began. Later fragments that overtake the first are not
// held back, Fill refuses them and the sender repeats.
//
// The engine has one for each side, so that a fragment from the LAN cannot
// speak for one from a tunnel. It is safe for concurrent use.
type Fragments struct {
	seeds seeds
	mu    sync.Mutex
	sets  [fragmentSets][fragmentWays]datagram
}

// datagram is one entry; the zero value is free.
type datagram struct {
	key   packet.Key // of the first fragment
	at    int64
	id    uint32
	proto uint8 // of the datagram's identity
	used  bool
}

// NewFragments makes an empty cache of about 64 KiB. A seed of 0 draws one.
func NewFragments(seed uint64) *Fragments {
	return &Fragments{seeds: newSeeds(seed)}
}

// Remember keeps the ports of a first fragment, and does nothing for any other
// packet. The same datagram again, or another one that reuses its
// identification (RFC 4963), takes the place of the former.
func (c *Fragments) Remember(in *packet.Info, now int64) {
	if in.Fragment != packet.FirstFragment {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	set := c.set(in)
	slot := find(set, in)
	if slot == nil {
		slot = &set[0]
		for i := range set {
			if !set[i].used || set[i].at < slot.at && slot.used {
				slot = &set[i]
			}
		}
	}
	*slot = datagram{key: in.Key, at: now, id: in.FragID, proto: datagramProto(in), used: true}
}

// Fill completes the key of a later fragment, ports and (IPv6) protocol, and
// reports whether it could. The key of any other packet is complete.
func (c *Fragments) Fill(in *packet.Info, now int64) bool {
	if in.Fragment != packet.LaterFragment {
		return true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	d := find(c.set(in), in)
	if d == nil || now-d.at > int64(FragmentLife) {
		return false
	}
	in.Key.SrcPort, in.Key.DstPort, in.Key.Proto = d.key.SrcPort, d.key.DstPort, d.key.Proto
	return true
}

// set is where a datagram is kept: chosen by what all its fragments have.
func (c *Fragments) set(in *packet.Info) *[fragmentWays]datagram {
	k := packet.Key{
		Src: in.Key.Src, Dst: in.Key.Dst, Proto: datagramProto(in),
		SrcPort: uint16(in.FragID >> 16), DstPort: uint16(in.FragID),
	}
	return &c.sets[c.seeds.hash(&k)%fragmentSets]
}

// find is the entry of the packet's datagram, or nil.
func find(set *[fragmentWays]datagram, in *packet.Info) *datagram {
	proto := datagramProto(in)
	for i := range set {
		d := &set[i]
		if d.used && d.id == in.FragID && d.proto == proto &&
			d.key.Src == in.Key.Src && d.key.Dst == in.Key.Dst {
			return d
		}
	}
	return nil
}

// datagramProto is the protocol as far as it tells datagrams apart: in IPv4
// (RFC 791, 3.2), but not in IPv6, where later fragments may name another
// header than the first (RFC 8200, 4.5).
func datagramProto(in *packet.Info) uint8 {
	if in.Version == 6 {
		return 0
	}
	return in.Key.Proto
}
