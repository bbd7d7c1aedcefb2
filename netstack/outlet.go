package netstack

import (
	"patronus/netstack/lan"
	"patronus/netstack/packet"
)

// outlet collects what goes to LAN ports during one batch, in order.
type outlet struct {
	dir   Direction // in which its packets are counted
	pkts  []lan.Out
	notes []note
	infos []packet.Info // of borrowed packets
	used  int
	owned []*packet.Buffer
}

// note is what the outlet has to know of a packet besides its bytes.
type note struct {
	port    uint16
	packets uint16 // more than one for a superpacket
	ours    bool   // an answer of our own
}

func newOutlet(dir Direction, n int) outlet {
	return outlet{dir: dir, pkts: make([]lan.Out, 0, n), notes: make([]note, 0, n), owned: make([]*packet.Buffer, 0, n)}
}

// grow makes room for the decoded headers of n borrowed packets.
func (o *outlet) grow(n int) {
	if len(o.infos) < n {
		o.infos = make([]packet.Info, n)
	}
}

// info is where the next packet is decoded. If it is then borrowed, it stays
// until write, else the next one takes its place.
func (o *outlet) info() *packet.Info { return &o.infos[o.used] }

// borrowed adds a packet that stays valid until write, decoded into info().
func (o *outlet) borrowed(b []byte, to route) {
	o.pkts = append(o.pkts, lan.Out{Bytes: b, Info: o.info(), NextHop: to.nextHop})
	o.notes = append(o.notes, note{port: to.port, packets: 1})
	o.used++
}

// own adds a buffer, which is released by write.
func (o *outlet) own(b *packet.Buffer, to route) {
	o.pkts = append(o.pkts, lan.Out{Bytes: b.Bytes, Info: &b.Info, NextHop: to.nextHop, GSO: b.GSO})
	o.notes = append(o.notes, note{port: to.port, packets: uint16(b.Segments())})
	o.owned = append(o.owned, b)
}

// copied adds a copy of a packet that we made.
func (o *outlet) copied(p []byte, to route) {
	b := packet.Get(len(p))
	copy(b.Bytes, p)
	packet.Decode(b.Bytes, &b.Info)
	o.own(b, to)
}

// answer adds a copy of an answer of ours.
func (o *outlet) answer(p []byte, to route) {
	o.copied(p, to)
	o.notes[len(o.notes)-1].ours = true
}

// write sends everything, one call for each row of packets to one port.
func (o *outlet) write(e *Engine, s *snapshot) {
	for start := 0; start < len(o.pkts); {
		end, packets, bytes, ours := start, 0, 0, 0
		for ; end < len(o.pkts) && o.notes[end].port == o.notes[start].port; end++ {
			if o.notes[end].ours {
				ours++
				continue
			}
			packets += int(o.notes[end].packets)
			bytes += len(o.pkts[end].Bytes)
		}
		if err := s.ports[o.notes[start].port].port.Write(o.pkts[start:end]); err != nil {
			e.counters.drop(o.dir, LANFull, packets)
		} else {
			e.counters.forward(o.dir, packets, bytes)
			e.counters.dir[o.dir].answered.Add(uint64(ours))
		}
		start = end
	}
	for _, b := range o.owned {
		b.Release()
	}
	clear(o.pkts)
	clear(o.owned)
	o.pkts, o.notes, o.owned, o.used = o.pkts[:0], o.notes[:0], o.owned[:0], 0
}
