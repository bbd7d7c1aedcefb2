package wire

import (
	"encoding/binary"

	"patronus/netstack/packet"
)

// vnetHeader is the size of struct virtio_net_hdr (linux/virtio_net.h).
const vnetHeader = 10

const (
	needsCsum = 1 // VIRTIO_NET_HDR_F_NEEDS_CSUM

	gsoNone  = 0
	gsoTCPv4 = 1
	gsoTCPv6 = 4
	gsoUDP   = 5
	gsoECN   = 0x80
)

// vnetHdr is what the kernel left to do. Offsets count from the frame's start.
type vnetHdr struct {
	flags, gsoType                         uint8
	hdrLen, gsoSize, csumStart, csumOffset uint16
}

func parseVnet(b []byte) vnetHdr {
	u16 := binary.NativeEndian.Uint16
	return vnetHdr{b[0], b[1] &^ gsoECN, u16(b[2:]), u16(b[4:]), u16(b[6:]), u16(b[8:])}
}

// shift moves the offsets when n bytes are put into the frame.
func (h *vnetHdr) shift(n uint16) {
	h.hdrLen += n
	if h.flags&needsCsum != 0 {
		h.csumStart += n
	}
}

// cutter collects complete frames, cutting superpackets, in memory that it uses
// again for the next batch. Not safe for concurrent use.
type cutter struct {
	frames [][]byte
	slab   []byte
	seg    packet.Segmenter
}

func (c *cutter) reset() { c.frames, c.slab = c.frames[:0], c.slab[:0] }

// room returns n bytes of the slab. Growing it leaves earlier frames in the old
// one, where they stay valid.
func (c *cutter) room(n int) []byte {
	if len(c.slab)+n > cap(c.slab) {
		c.slab = make([]byte, 0, max(2*cap(c.slab), 256<<10, n))
	}
	start := len(c.slab)
	c.slab = c.slab[:start+n]
	return c.slab[start : start+n : start+n]
}

// add copies a frame, or what it becomes. It reports false for a superpacket
// that cannot be cut.
func (c *cutter) add(frame []byte, h vnetHdr) bool {
	if h.gsoType == gsoNone {
		f := c.room(len(frame))
		copy(f, frame)
		if h.flags&needsCsum != 0 && !finish(f, int(h.csumStart), int(h.csumOffset)) {
			return false
		}
		c.frames = append(c.frames, f)
		return true
	}
	return c.cut(frame, h)
}

// finish completes a partial checksum (RFC 1071), as the device would have.
func finish(f []byte, start, offset int) bool {
	if start+offset+2 > len(f) {
		return false
	}
	sum := ^packet.Checksum(f[start:], 0)
	if sum == 0 {
		sum = 0xffff // 0 means "none" in UDP, and both are zero elsewhere
	}
	binary.BigEndian.PutUint16(f[start+offset:], sum)
	return true
}

func (c *cutter) cut(frame []byte, h vnetHdr) bool {
	link := linkLen(frame)
	if link == 0 || len(frame)-link > packet.BigSize-packet.Headroom {
		return false
	}
	gso := packet.GSO{Size: h.gsoSize, NeedsCsum: h.flags&needsCsum != 0, CsumOffset: h.csumOffset}
	switch h.gsoType {
	case gsoTCPv4, gsoTCPv6:
		gso.Proto = packet.TCP
	case gsoUDP:
		gso.Proto = packet.UDP
	default:
		return false
	}
	if int(h.hdrLen) > link {
		gso.HdrLen = h.hdrLen - uint16(link)
	}
	if int(h.csumStart) > link {
		gso.CsumStart = h.csumStart - uint16(link)
	}
	b := packet.Get(len(frame) - link)
	defer b.Release()
	copy(b.Bytes, frame[link:])
	b.GSO = gso
	c.seg.Reset(b)
	if c.seg.Left() == 0 {
		return false
	}
	for c.seg.Left() > 0 {
		f := c.room(link + c.seg.Len())
		copy(f, frame[:link])
		if _, ok := c.seg.Next(f[link:]); !ok {
			return false
		}
		c.frames = append(c.frames, f)
	}
	return true
}

// linkLen is the length of the Ethernet header with its VLAN tags, 0 if what
// follows is not IP.
func linkLen(frame []byte) int {
	for n := 12; n+2 <= len(frame) && n <= 12+2*4; n += 4 {
		switch binary.BigEndian.Uint16(frame[n:]) {
		case 0x0800, 0x86dd:
			return n + 2
		case 0x8100, 0x88a8:
		default:
			return 0
		}
	}
	return 0
}
