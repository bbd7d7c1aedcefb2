package lan

import (
	"encoding/binary"

	"golang.org/x/sys/unix"

	"patronus/netstack/packet"
)

// vnetLen is the size of struct virtio_net_hdr, which TUN devices and raw
// sockets put before each packet when they are asked to.
const vnetLen = 10

// maxPacket is the largest packet that fits a packet.Buffer.
const maxPacket = packet.BigSize - packet.Headroom

// Offsets and lengths of the headers dealt with here (RFC 791, 8200, 9293, 768).
const (
	ipv4Len     = 20
	ipv6Len     = 40
	tcpMinLen   = 20
	tcpCsum     = 16
	tcpFlagsOff = 13
	tcpPSH      = 0x08
	tcpACK      = 0x10
	udpLen      = 8
	udpCsum     = 6
)

// vnetHeader is struct virtio_net_hdr (linux/virtio_net.h), host byte order.
type vnetHeader struct {
	flags, gsoType                       uint8
	hdrLen, gsoSize, csumStart, csumOffs uint16
}

// decode reads the header from the first vnetLen bytes of b.
func (h *vnetHeader) decode(b []byte) {
	_ = b[vnetLen-1]
	h.flags, h.gsoType = b[0], b[1]
	h.hdrLen = binary.NativeEndian.Uint16(b[2:])
	h.gsoSize = binary.NativeEndian.Uint16(b[4:])
	h.csumStart = binary.NativeEndian.Uint16(b[6:])
	h.csumOffs = binary.NativeEndian.Uint16(b[8:])
}

// put writes the header to the first vnetLen bytes of b.
func (h *vnetHeader) put(b []byte) {
	_ = b[vnetLen-1]
	b[0], b[1] = h.flags, h.gsoType
	binary.NativeEndian.PutUint16(b[2:], h.hdrLen)
	binary.NativeEndian.PutUint16(b[4:], h.gsoSize)
	binary.NativeEndian.PutUint16(b[6:], h.csumStart)
	binary.NativeEndian.PutUint16(b[8:], h.csumOffs)
}

// vnetFor is the header for a packet with GSO metadata that lies behind l2
// bytes of link header.
func vnetFor(g *packet.GSO, version uint8, l2 int) vnetHeader {
	var h vnetHeader
	if g.NeedsCsum {
		h.flags = unix.VIRTIO_NET_HDR_F_NEEDS_CSUM
		h.csumStart = g.CsumStart + uint16(l2)
		h.csumOffs = g.CsumOffset
	}
	if g.Size != 0 {
		h.gsoSize = g.Size
		h.hdrLen = g.HdrLen + uint16(l2)
		switch {
		case g.Proto == packet.UDP:
			h.gsoType = unix.VIRTIO_NET_HDR_GSO_UDP_L4
		case version == 6:
			h.gsoType = unix.VIRTIO_NET_HDR_GSO_TCPV6
		default:
			h.gsoType = unix.VIRTIO_NET_HDR_GSO_TCPV4
		}
	}
	return h
}

// metadata turns the kernel's header into b.GSO. b.Bytes is the IP packet; the
// header counts from l2 bytes before it. The kernel's hdr_len is not believed:
// for a forwarded packet it is whatever the sender's driver left there, so the
// packet's own headers are read. It returns false and the reason for a packet
// that must be dropped.
func (h *vnetHeader) metadata(b *packet.Buffer, l2 int) (Drop, bool) {
	size := len(b.Bytes)
	b.GSO, b.Info = packet.GSO{}, packet.Info{}
	if h.flags&unix.VIRTIO_NET_HDR_F_NEEDS_CSUM != 0 {
		start := int(h.csumStart) - l2
		if start < ipv4Len || start+int(h.csumOffs)+2 > size {
			return DropMalformed, false
		}
		b.GSO.NeedsCsum = true
		b.GSO.CsumStart = uint16(start)
		b.GSO.CsumOffset = h.csumOffs
	}
	kind := h.gsoType &^ unix.VIRTIO_NET_HDR_GSO_ECN
	if kind == unix.VIRTIO_NET_HDR_GSO_NONE {
		return 0, true
	}
	return h.superpacket(b, kind)
}

// superpacket is metadata for a packet that is to be cut.
func (h *vnetHeader) superpacket(b *packet.Buffer, kind uint8) (Drop, bool) {
	var proto, version uint8
	var csum uint16
	switch kind {
	case unix.VIRTIO_NET_HDR_GSO_TCPV4:
		proto, version, csum = packet.TCP, 4, tcpCsum
	case unix.VIRTIO_NET_HDR_GSO_TCPV6:
		proto, version, csum = packet.TCP, 6, tcpCsum
	case unix.VIRTIO_NET_HDR_GSO_UDP_L4:
		proto, csum = packet.UDP, udpCsum
	default:
		return DropUnknownGSO, false
	}
	in := &b.Info
	if packet.Decode(b.Bytes, in) != 0 || in.Key.Proto != proto || in.Fragment != packet.Whole ||
		(version != 0 && in.Version != version) || h.gsoSize == 0 || int(in.Length) > len(b.Bytes) {
		return DropMalformed, false
	}
	b.Bytes = b.Bytes[:in.Length]
	g := &b.GSO
	if g.NeedsCsum {
		if g.CsumStart != in.L4 || g.CsumOffset != csum {
			return DropMalformed, false
		}
	} else {
		// Merged by hardware, each checksum checked there: say so in the form
		// that whoever cuts it expects, a checksum that holds the pseudo-header.
		if h.flags&unix.VIRTIO_NET_HDR_F_DATA_VALID == 0 {
			return DropUnverified, false
		}
		binary.BigEndian.PutUint16(b.Bytes[int(in.L4)+int(csum):], fold(pseudoSum(b.Bytes, in)))
		g.NeedsCsum, g.CsumStart, g.CsumOffset = true, in.L4, csum
	}
	if int(in.Payload) >= len(b.Bytes) {
		return DropMalformed, false
	}
	if len(b.Bytes)-int(in.Payload) <= int(h.gsoSize) {
		return 0, true // one segment is a plain packet
	}
	g.Size, g.HdrLen, g.Proto = h.gsoSize, in.Payload, proto
	if b.Segments() == 0 {
		return DropMalformed, false // whoever cuts it would refuse
	}
	return 0, true
}

// pseudoSum is the unfolded sum of the pseudo-header of the packet b that was
// decoded into in (RFC 9293 3.1, RFC 8200 8.1).
func pseudoSum(b []byte, in *packet.Info) uint64 {
	sum := uint64(in.Key.Proto) + uint64(in.Length) - uint64(in.L4)
	var addrs []byte
	if in.Version == 4 {
		addrs = b[12:ipv4Len]
	} else {
		addrs = b[8:ipv6Len]
	}
	for len(addrs) >= 4 {
		sum += uint64(binary.BigEndian.Uint32(addrs))
		addrs = addrs[4:]
	}
	return sum
}

// fold brings a ones-complement sum down to 16 bits (RFC 1071).
func fold(sum uint64) uint16 {
	sum = sum>>32 + sum&0xffffffff
	sum = sum>>32 + sum&0xffffffff
	sum = sum>>16 + sum&0xffff
	sum = sum>>16 + sum&0xffff
	return uint16(sum)
}
