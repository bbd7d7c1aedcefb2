package packet

import (
	"encoding/binary"
	"math/bits"
)

// Info is what the data path needs to know of a packet. It is a value without
// pointers, meant to be reused: one cache line.
type Info struct {
	Key     Key
	Version uint8 // 4 or 6; 0: nothing was decoded yet
	TOS     uint8 // the whole octet: DSCP<<2 | ECN
	TTL     uint8 // hop limit for IPv6
	Flags   uint8 // TCP flags, 0 for other protocols
	// L4 is the offset of the transport header, Payload that of what follows
	// it. They are equal for protocols that are not looked into.
	L4, Payload uint16
	// Length is the IP packet's own length; what follows it is link padding.
	Length uint32
	// Fragment state: First has ports, Later (offset > 0) has none.
	Fragment Fragment
	FragID   uint32 // identification of a fragment, otherwise undefined
	ICMPType uint8  // ICMP and ICMPv6 only, otherwise 0
	ICMPCode uint8
}

// Fragment says which part of a datagram a packet is.
type Fragment uint8

// The parts. An IPv6 atomic fragment is Whole (RFC 6946).
const (
	Whole Fragment = iota
	FirstFragment
	LaterFragment
)

// TCP flags (RFC 9293, 3.1), as in Info.Flags.
const (
	FlagFIN = 1 << iota
	FlagSYN
	FlagRST
	FlagPSH
	FlagACK
	FlagURG
	FlagECE
	FlagCWR
)

const (
	ipv4Len = 20
	ipv6Len = 40
	tcpLen  = 20
	udpLen  = 8
	icmpLen = 8
	sctpLen = 12

	icmp4EchoReply, icmp4Echo = 0, 8
	icmp6Echo, icmp6EchoReply = 128, 129

	fragMore   = 0x2000 // IPv4 flags and offset word (RFC 791)
	fragDF     = 0x4000
	fragOffset = 0x1fff

	// mapped is the second half of an IPv4-mapped address, read as a
	// little-endian word; the address itself goes into the upper 32 bits.
	mapped = 0xffff0000
)

// Decode reads the headers of the IP packet that b starts with into in and
// returns 0, or the reason why the packet is not to be forwarded.
//
// It checks what a router and a firewall need to rely on: lengths, the IPv4
// header checksum, fragments that hide a transport header, source routes and
// addresses that never appear on a wire. It does not verify transport
// checksums (they may be partial) and does not look into options beyond their
// bounds. Bytes after the packet are link padding; Info.Length excludes them.
//
// b is borrowed until Decode returns. It never allocates, never reads outside
// b and is safe to call from several goroutines with different in.
func Decode(b []byte, in *Info) Fault {
	if len(b) < ipv4Len {
		return Truncated
	}
	w0 := binary.LittleEndian.Uint64(b)
	if w0&plainMask != plain4 {
		if w0&0xf0 == 0x60 {
			return decode6(b, in)
		}
		return decode4(b, in)
	}
	// The common case, an IPv4 packet without options that is no fragment, and
	// carries TCP or UDP: it is taken if everything is as it should be. If not,
	// decode4 finds out what the matter is.
	w1, w2 := binary.LittleEndian.Uint64(b[8:]), uint64(binary.LittleEndian.Uint32(b[16:]))
	total := int(bits.ReverseBytes16(uint16(w0 >> 16)))
	proto := uint8(w1 >> 8)
	if total > len(b) || total < ipv4Len+udpLen || !sums(w0, w1, w2) || !plainPair(w1>>32, w2) {
		return decode4(b, in)
	}
	h := b[ipv4Len:total]
	n, flags := plainTransport(h, proto)
	if n == 0 {
		return decode4(b, in)
	}
	ports := binary.BigEndian.Uint32(h)
	in.Key.SrcPort, in.Key.DstPort = uint16(ports>>16), uint16(ports)
	in.put4(w0, w1, w2)
	in.Length = uint32(total)
	in.L4, in.Payload = ipv4Len, uint16(ipv4Len+n)
	in.Fragment, in.Flags = Whole, flags
	in.ICMPType, in.ICMPCode = 0, 0
	return OK
}

// In the first word of a packet: IPv4, no options, no fragment.
const (
	plainMask = 0xff3f_0000_0000_00ff
	plain4    = 0x45
)

// put4 stores what the words of an IPv4 header hold.
func (in *Info) put4(w0, w1, w2 uint64) {
	binary.LittleEndian.PutUint64(in.Key.Src[:8], 0)
	binary.LittleEndian.PutUint64(in.Key.Src[8:], w1&^0xffffffff|mapped)
	binary.LittleEndian.PutUint64(in.Key.Dst[:8], 0)
	binary.LittleEndian.PutUint64(in.Key.Dst[8:], w2<<32|mapped)
	in.Key.Proto = uint8(w1 >> 8)
	in.Version = 4
	in.TOS = uint8(w0 >> 8)
	in.TTL = uint8(w1)
}

// sums reports whether the words of a header add up. A ones-complement sum is
// a sum modulo 0xffff, and a correct header's is 0 in that arithmetic,
// whatever the width and the byte order of the words (RFC 1071, 2).
func sums(w0, w1, w2 uint64) bool {
	sum, carry := bits.Add64(w0, w1, 0)
	sum, carry = bits.Add64(sum, w2, carry)
	sum, _ = bits.Add64(sum, 0, carry)
	return sum%0xffff == 0
}

// plainPair reports whether two IPv4 addresses (little-endian words) are
// different and no special ones: classes A to C without networks 0 and 127.
func plainPair(src, dst uint64) bool {
	s, d := uint8(src), uint8(dst)
	return s-1 < 223 && s != 127 && d != 0 && d != 127 && src != dst
}

// plainTransport returns the length of a TCP or UDP header and the TCP flags.
// h has at least 8 bytes; the length is 0 for other protocols and for headers
// that are not as they should be.
func plainTransport(h []byte, proto uint8) (n int, flags uint8) {
	if proto == TCP && len(h) >= tcpLen {
		if n = int(h[12]>>4) * 4; n >= tcpLen && n <= len(h) {
			return n, h[13]
		}
	} else if proto == UDP {
		if n = int(binary.BigEndian.Uint16(h[4:])); n >= udpLen && n <= len(h) {
			return udpLen, 0
		}
	}
	return 0, 0
}

// decode4 decodes any IPv4 packet.
func decode4(b []byte, in *Info) Fault {
	w0, w1 := binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[8:])
	w2 := uint64(binary.LittleEndian.Uint32(b[16:]))
	if w0&0xf0 != 0x40 {
		return BadVersion
	}
	header, total := int(w0&0xf)*4, int(bits.ReverseBytes16(uint16(w0>>16)))
	if total > len(b) {
		return Truncated
	}
	if header < ipv4Len {
		return BadHeader
	}
	if total < header {
		return BadLength
	}
	b = b[:total]

	var options uint64
	if header > ipv4Len {
		var fault Fault
		if options, fault = options4(b[ipv4Len:header]); fault != OK {
			return fault
		}
	}
	if !sums(w0, w1, w2+options) {
		return BadChecksum
	}
	proto := uint8(w1 >> 8)
	in.put4(w0, w1, w2)
	in.Length = uint32(total)
	in.FragID = uint32(bits.ReverseBytes16(uint16(w0 >> 32)))
	in.Fragment = Whole
	if frag := bits.ReverseBytes16(uint16(w0 >> 48)); frag&(fragMore|fragOffset) != 0 {
		if fault := fragment(in, int(frag&fragOffset)*8, total-header, frag&fragMore != 0, proto); fault != OK {
			return fault
		}
	}
	if fault := transport(b, header, proto, in); fault != OK {
		return fault
	}

	src, dst := uint8(w1>>32), uint8(w2)
	if src-1 >= 223 || src == 127 {
		if src < 240 || uint32(w1>>32) == 0xffffffff {
			return BadSource
		}
	}
	if dst == 0 || dst == 127 {
		return BadDestination
	}
	if w1>>32 == w2 && in.Key.SrcPort == in.Key.DstPort {
		return Land
	}
	return OK
}

// options4 sums an IPv4 header's options and refuses those that steer the
// packet: loose and strict source route (RFC 7126, 4.3 and 4.4).
func options4(b []byte) (sum uint64, fault Fault) {
	for i := 0; i+4 <= len(b); i += 4 {
		sum += uint64(binary.LittleEndian.Uint32(b[i:]))
	}
	for len(b) > 0 {
		switch b[0] {
		case 0: // end of list
			return sum, OK
		case 1: // no operation
			b = b[1:]
			continue
		case 0x83, 0x89:
			return sum, SourceRoute
		}
		if len(b) < 2 || b[1] < 2 || int(b[1]) > len(b) {
			return sum, BadHeader
		}
		b = b[b[1]:]
	}
	return sum, OK
}

// fragment judges one fragment: offset and length in bytes of the datagram's
// fragmentable part.
func fragment(in *Info, offset, length int, more bool, proto uint8) Fault {
	in.Fragment = FirstFragment
	if offset > 0 {
		in.Fragment = LaterFragment
	}
	// 65535 counts the IPv4 header too; the shortest is enough of a bound.
	if length == 0 || more && length%8 != 0 || offset+length > 0xffff-ipv4Len {
		return BadFragment
	}
	// RFC 1858, 3.2: such a fragment overwrites the TCP flags on reassembly.
	if offset == 8 && proto == TCP {
		return TinyFragment
	}
	return OK
}

// transport reads the header at b[at:]; b is the packet without padding.
func transport(b []byte, at int, proto uint8, in *Info) Fault {
	in.L4, in.Payload = uint16(at), uint16(at)
	in.Flags, in.ICMPType, in.ICMPCode = 0, 0, 0
	in.Key.SrcPort, in.Key.DstPort = 0, 0
	if in.Fragment == LaterFragment {
		return OK
	}
	h := b[at:]
	switch proto {
	case TCP:
		if len(h) < tcpLen {
			return short(in)
		}
		n := int(h[12]>>4) * 4
		if n < tcpLen {
			return BadTransport
		}
		if n > len(h) {
			if in.Fragment == FirstFragment {
				return TinyFragment
			}
			return BadTransport
		}
		in.Flags = h[13]
		in.Payload += uint16(n)
	case UDP:
		if len(h) < udpLen {
			return short(in)
		}
		// Less than the IP payload is allowed: what follows are the UDP
		// options of RFC 9868. The first fragment of many carries less.
		n := int(binary.BigEndian.Uint16(h[4:]))
		if n < udpLen || n > len(h) && in.Fragment == Whole {
			return BadTransport
		}
		in.Payload += udpLen
	case SCTP:
		if len(h) < sctpLen {
			return short(in)
		}
		in.Payload += sctpLen
	case ICMP, ICMPv6:
		if (proto == ICMP) != (in.Version == 4) {
			return OK // the other family's protocol: carried, not understood
		}
		if len(h) < icmpLen {
			return short(in)
		}
		in.ICMPType, in.ICMPCode = h[0], h[1]
		in.Payload += icmpLen
		if isEcho(proto, h[0]) {
			id := binary.BigEndian.Uint16(h[4:])
			in.Key.SrcPort, in.Key.DstPort = id, id
		}
		return OK
	default:
		return OK
	}
	in.Key.SrcPort, in.Key.DstPort = binary.BigEndian.Uint16(h), binary.BigEndian.Uint16(h[2:])
	return OK
}

// short is the fault of a packet that ends inside its transport header.
func short(in *Info) Fault {
	if in.Fragment == FirstFragment {
		return TinyFragment
	}
	return Truncated
}

// isEcho reports whether an ICMP type carries an identifier that names a
// conversation.
func isEcho(proto, kind uint8) bool {
	if proto == ICMP {
		return kind == icmp4Echo || kind == icmp4EchoReply
	}
	return kind == icmp6Echo || kind == icmp6EchoReply
}
