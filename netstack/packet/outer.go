package packet

import "encoding/binary"

// OuterLen is the length of the overlay's outer IPv4 header, bytes.
const OuterLen = 20

const outerTTL = 64

// PutOuter writes the outer header of an IP-in-IP packet (RFC 2003 for IPv4
// inside, RFC 4213 for IPv6) into dst[:OuterLen]. payload is the inner
// packet's length in bytes, at most 65515; tos is the inner packet's: the
// outer copies DSCP and ECN (RFC 6040, normal mode). The packet is atomic: DF,
// identification 0 (RFC 6864).
func PutOuter(dst []byte, src, dstAddr [4]byte, innerVersion, tos uint8, payload int) {
	h := (*[OuterLen]byte)(dst)
	proto := uint8(IPIP)
	if innerVersion == 6 {
		proto = IPv6IP
	}
	putHeader4(h, src, dstAddr, proto, tos, outerTTL, OuterLen+payload)
}

// ParseOuter splits a packet of the overlay. ok is false for anything but a
// whole, correct IP-in-IP packet without options whose inner version is what
// the outer header says; such a packet is not the overlay's. inner aliases b,
// without padding. The outer TOS octet is b[1].
func ParseOuter(b []byte) (src, dst [4]byte, proto uint8, inner []byte, ok bool) {
	if len(b) <= OuterLen || b[0] != 0x45 {
		return src, dst, 0, nil, false
	}
	total := int(binary.BigEndian.Uint16(b[2:]))
	frag := binary.BigEndian.Uint16(b[6:])
	if total <= OuterLen || total > len(b) || frag&(fragMore|fragOffset) != 0 || Checksum(b[:OuterLen], 0) != 0xffff {
		return src, dst, 0, nil, false
	}
	proto, inner = b[9], b[OuterLen:total]
	switch {
	case proto == IPIP && inner[0]>>4 == 4, proto == IPv6IP && inner[0]>>4 == 6:
		return [4]byte(b[12:16]), [4]byte(b[16:20]), proto, inner, true
	}
	return src, dst, 0, nil, false
}

// putHeader4 writes an atomic IPv4 header without options.
func putHeader4(h *[ipv4Len]byte, src, dst [4]byte, proto, tos, ttl uint8, total int) {
	h[0], h[1] = 0x45, tos
	binary.BigEndian.PutUint16(h[2:], uint16(total))
	h[4], h[5] = 0, 0
	binary.BigEndian.PutUint16(h[6:], fragDF)
	h[8], h[9] = ttl, proto
	h[10], h[11] = 0, 0
	*(*[4]byte)(h[12:]) = src
	*(*[4]byte)(h[16:]) = dst
	binary.BigEndian.PutUint16(h[10:], ^Checksum(h[:], 0))
}

// putHeader6 writes an IPv6 header without extensions.
func putHeader6(h *[ipv6Len]byte, src, dst [16]byte, proto, ttl uint8, payload int) {
	h[0], h[1], h[2], h[3] = 0x60, 0, 0, 0
	binary.BigEndian.PutUint16(h[4:], uint16(payload))
	h[6], h[7] = proto, ttl
	*(*[16]byte)(h[8:]) = src
	*(*[16]byte)(h[24:]) = dst
}
