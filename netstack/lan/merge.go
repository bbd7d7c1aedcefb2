package lan

import (
	"bytes"
	"encoding/binary"

	"patronus/netstack/packet"
)

// Limits of one merged packet.
const (
	maxSegments = 128   // the kernel's UDP_MAX_SEGMENTS; 44 segments of 1460 fill a packet anyway
	maxMerged   = 65535 // what an IP length field holds
	maxHeaders  = ipv6Len + 60
	openRuns    = 16 // flows of one batch that are merged side by side
)

// run is what leaves as one packet: a single packet, or consecutive segments
// of one flow. Its members are linked through merger.next.
type run struct {
	first, last int32  // indices into the batch
	n           int32  // members
	length      uint32 // of the merged IP packet, bytes
	size        uint16 // payload of each member but the last, bytes
	checked     bool   // the first member's checksum is right
}

// merger finds the runs of a batch. Flows are merged side by side; the runs are
// ordered by their first members, and a flow never has more than one open, so
// that order within a flow is kept.
type merger struct {
	runs []run
	next []int32         // by packet: the next member of its run
	open [openRuns]int32 // by flow hash: index of the run that may still grow, plus 1
}

// plan sorts pkts into m.runs. tcp and udp say which protocols may be merged.
// It reads the packets but changes nothing.
func (m *merger) plan(pkts []Out, tcp, udp bool) {
	m.runs = m.runs[:0]
	if cap(m.next) < len(pkts) {
		m.next = make([]int32, len(pkts))
	}
	m.next = m.next[:len(pkts)]
	m.open = [openRuns]int32{}
	for i := range pkts {
		p := &pkts[i]
		m.next[i] = -1
		if p.Info == nil {
			m.start(int32(i), p)
			continue
		}
		slot := &m.open[flowSlot(&p.Info.Key)]
		able := p.GSO == packet.GSO{} && (tcp && mergeableTCP(p) || udp && mergeableUDP(p))
		if *slot != 0 {
			r := &m.runs[*slot-1]
			if first := &pkts[r.first]; first.Info.Key == p.Info.Key {
				if able && m.join(pkts, r, int32(i)) {
					if payloadLen(p) < int(r.size) || pushed(p) {
						*slot = 0
					}
					continue
				}
				*slot = 0
			}
		}
		m.start(int32(i), p)
		if able && !pushed(p) {
			*slot = int32(len(m.runs))
		}
	}
}

// start begins a run with packet i.
func (m *merger) start(i int32, p *Out) {
	r := run{first: i, last: i, n: 1, length: uint32(len(p.Bytes))}
	if p.Info != nil && p.Info.Payload != 0 && p.Info.Length <= uint32(len(p.Bytes)) {
		r.length = p.Info.Length
		r.size = uint16(p.Info.Length - uint32(p.Info.Payload))
	}
	m.runs = append(m.runs, r)
}

// join appends packet i to r if it continues it. Both checksums are verified
// first: the kernel computes new ones over whatever it is given, which would
// make a corrupt segment look right.
func (m *merger) join(pkts []Out, r *run, i int32) bool {
	first, p := &pkts[r.first], &pkts[i]
	size := payloadLen(p)
	if r.n >= maxSegments || size > int(r.size) || int(r.length)+size > maxMerged || !continues(first, p, r) {
		return false
	}
	if !r.checked {
		if !checksumOK(first) {
			return false
		}
		r.checked = true
	}
	if !checksumOK(p) {
		return false
	}
	m.next[r.last] = i
	r.last = i
	r.n++
	r.length += uint32(size)
	return true
}

// flowSlot spreads flows over the slots of merger.open.
func flowSlot(k *packet.Key) uint32 {
	h := binary.LittleEndian.Uint32(k.Src[12:]) ^ binary.LittleEndian.Uint32(k.Dst[12:])*0x85ebca6b ^
		uint32(k.SrcPort)<<16 ^ uint32(k.DstPort)
	return h * 0x9e3779b1 >> 28 // 4 bits: openRuns
}

func payloadLen(p *Out) int { return int(p.Info.Length) - int(p.Info.Payload) }

// pushed reports whether p ends a run: PSH is repeated on the last segment only.
func pushed(p *Out) bool { return p.Info.Key.Proto == packet.TCP && p.Info.Flags&tcpPSH != 0 }

// mergeableIP reports whether p is whole, has no IP options or extension
// headers, and carries a payload.
func mergeableIP(p *Out) bool {
	in := p.Info
	if in.Fragment != packet.Whole || in.Payload <= in.L4 || uint32(in.Payload) >= in.Length ||
		int(in.Length) > len(p.Bytes) {
		return false
	}
	if in.Version == 4 {
		return in.L4 == ipv4Len
	}
	return in.L4 == ipv6Len
}

// mergeableTCP admits data segments with no flag but ACK and PSH.
func mergeableTCP(p *Out) bool {
	return p.Info.Key.Proto == packet.TCP && p.Info.Flags&^tcpPSH == tcpACK && mergeableIP(p)
}

// mergeableUDP admits datagrams with a checksum.
func mergeableUDP(p *Out) bool {
	if p.Info.Key.Proto != packet.UDP || !mergeableIP(p) {
		return false
	}
	h := p.Bytes[p.Info.L4:]
	return h[udpCsum]|h[udpCsum+1] != 0 && uint32(binary.BigEndian.Uint16(h[4:])) == p.Info.Length-uint32(p.Info.L4)
}

// continues reports whether p's headers are what the kernel would make for the
// next segment of r, whose first member is f.
func continues(f, p *Out, r *run) bool {
	if f.Info.TOS != p.Info.TOS || f.Info.TTL != p.Info.TTL || f.Info.Payload != p.Info.Payload {
		return false
	}
	a, b, l4 := f.Bytes, p.Bytes, int(f.Info.L4)
	if f.Info.Version == 4 {
		// The identification counts up, unless DF makes it meaningless (RFC
		// 6864, 4.1).
		if a[6] != b[6] || a[7] != b[7] {
			return false
		}
		if a[6]&0x40 == 0 && binary.BigEndian.Uint16(b[4:]) != binary.BigEndian.Uint16(a[4:])+uint16(r.n) {
			return false
		}
	} else if binary.BigEndian.Uint32(a) != binary.BigEndian.Uint32(b) { // flow label
		return false
	}
	if f.Info.Key.Proto == packet.UDP {
		return true
	}
	done := r.length - uint32(f.Info.Payload)
	ta, tb := a[l4:f.Info.Payload], b[l4:p.Info.Payload]
	return binary.BigEndian.Uint32(tb[4:]) == binary.BigEndian.Uint32(ta[4:])+done &&
		bytes.Equal(ta[8:tcpFlagsOff], tb[8:tcpFlagsOff]) && // acknowledgement, header length
		ta[tcpFlagsOff] == tb[tcpFlagsOff]&^tcpPSH && // the first has no PSH
		bytes.Equal(ta[14:tcpCsum], tb[14:tcpCsum]) && // window
		bytes.Equal(ta[18:], tb[18:]) // urgent pointer, options
}

// checksumOK verifies p's transport checksum.
func checksumOK(p *Out) bool {
	return packet.Checksum(p.Bytes[p.Info.L4:p.Info.Length], pseudoSum(p.Bytes, p.Info)) == 0xffff
}

// header writes the headers of the packet that r becomes to dst, which has room
// for maxHeaders, and returns their length and GSO metadata. r has more than one
// member.
func (r *run) header(dst []byte, pkts []Out) (int, packet.GSO) {
	first, last := &pkts[r.first], &pkts[r.last]
	in := *first.Info
	n, l4 := int(in.Payload), int(in.L4)
	h := dst[:copy(dst, first.Bytes[:n])]
	in.Length = r.length
	if in.Version == 4 {
		binary.BigEndian.PutUint16(h[2:], uint16(r.length))
		h[10], h[11] = 0, 0
		binary.BigEndian.PutUint16(h[10:], ^packet.Checksum(h[:l4], 0))
	} else {
		binary.BigEndian.PutUint16(h[4:], uint16(r.length-ipv6Len))
	}
	g := packet.GSO{
		Size: r.size, HdrLen: in.Payload, Proto: in.Key.Proto,
		NeedsCsum: true, CsumStart: in.L4, CsumOffset: tcpCsum,
	}
	if in.Key.Proto == packet.UDP {
		g.CsumOffset = udpCsum
		binary.BigEndian.PutUint16(h[l4+4:], uint16(r.length)-in.L4)
	} else {
		h[l4+tcpFlagsOff] |= last.Info.Flags & tcpPSH
	}
	binary.BigEndian.PutUint16(h[l4+int(g.CsumOffset):], fold(pseudoSum(h, &in)))
	return n, g
}
