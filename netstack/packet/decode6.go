package packet

import "encoding/binary"

// IPv6 extension headers that are walked (RFC 8200, 4; RFC 4302).
const (
	hopByHop     = 0
	routing      = 43
	fragmentHdr  = 44
	authHdr      = 51
	destOptions  = 60
	fragmentLen  = 8
	moreFragment = 1 // in the low bits of the offset word

	// maxExtensions bounds the walk. RFC 9098 and RFC 9673 allow a limit;
	// RFC 8200 recommends at most seven headers in one packet.
	maxExtensions = 8
)

// decode6 decodes an IPv6 packet; the common case first, as in Decode.
func decode6(b []byte, in *Info) Fault {
	if len(b) < ipv6Len {
		return Truncated
	}
	p := (*[ipv6Len]byte)(b)
	total, proto := ipv6Len+int(binary.BigEndian.Uint16(p[4:])), p[6]
	if total > len(b) {
		return Truncated
	}
	in.put6(p)
	in.Length = uint32(total)
	in.Fragment = Whole
	if h := b[ipv6Len:total]; len(h) >= udpLen {
		if n, flags := plainTransport(h, proto); n != 0 {
			ports := binary.BigEndian.Uint32(h)
			in.Key.SrcPort, in.Key.DstPort = uint16(ports>>16), uint16(ports)
			in.L4, in.Payload = ipv6Len, uint16(ipv6Len+n)
			in.Flags = flags
			in.ICMPType, in.ICMPCode = 0, 0
			return addresses6(p, uint16(ports) == uint16(ports>>16))
		}
	}
	at := ipv6Len
	if isExtension(proto) {
		var fault Fault
		if at, proto, fault = extensions(b[:total], proto, in); fault != OK {
			return fault
		}
		in.Key.Proto = proto
	}
	if fault := transport(b[:total], at, proto, in); fault != OK {
		return fault
	}
	return addresses6(p, in.Key.SrcPort == in.Key.DstPort)
}

// put6 stores what the words of an IPv6 header hold.
func (in *Info) put6(p *[ipv6Len]byte) {
	in.Key.Src = [16]byte(p[8:24])
	in.Key.Dst = [16]byte(p[24:40])
	in.Key.Proto = p[6]
	in.Version = 6
	in.TOS = p[0]<<4 | p[1]>>4
	in.TTL = p[7]
}

// addresses6 judges the addresses of a header.
func addresses6(p *[ipv6Len]byte, samePort bool) Fault {
	srcHi, srcLo := binary.LittleEndian.Uint64(p[8:]), binary.LittleEndian.Uint64(p[16:])
	dstHi, dstLo := binary.LittleEndian.Uint64(p[24:]), binary.LittleEndian.Uint64(p[32:])
	switch {
	case uint8(srcHi) == 0xff, srcHi == 0 && special6(srcLo):
		return BadSource
	case dstHi == 0 && special6(dstLo):
		return BadDestination
	case srcLo == dstLo && srcHi == dstHi && samePort:
		return Land
	}
	return OK
}

// special6 judges the second half (little-endian) of an address that starts
// with 64 zero bits: unspecified, loopback, or IPv4-mapped, which on the wire
// would pass for IPv4 in a Key (RFC 4942, 2.2).
func special6(lo uint64) bool {
	return lo == 0 || lo == 1<<56 || uint32(lo) == mapped
}

func isExtension(proto uint8) bool {
	// One word as a set: the numbers in question are below 64.
	const set = 1<<hopByHop | 1<<routing | 1<<fragmentHdr | 1<<authHdr | 1<<destOptions
	return proto < 64 && set>>proto&1 != 0
}

// extensions walks the extension headers of a packet without padding and
// returns where the upper-layer header starts and its protocol. For a later
// fragment that is what follows the fragment header, and its protocol is the
// fragment header's word for it.
func extensions(b []byte, next uint8, in *Info) (at int, proto uint8, fault Fault) {
	at = ipv6Len
	for n := 0; isExtension(next); n++ {
		if n == maxExtensions {
			return 0, 0, LongChain
		}
		// Each is at least 8 bytes long.
		if len(b)-at < 8 {
			return 0, 0, short(in)
		}
		h := b[at:]
		size := (int(h[1]) + 1) * 8
		switch next {
		case hopByHop:
			if n > 0 {
				return 0, 0, BadExtension
			}
		case routing:
			// Its Destination is not where the packet ends: neither policy nor
			// checksum would speak of the right address.
			if h[3] != 0 {
				return 0, 0, SourceRoute
			}
		case authHdr:
			size = (int(h[1]) + 2) * 4
		case fragmentHdr:
			word := binary.BigEndian.Uint16(h[2:])
			offset, more := int(word&^7), word&moreFragment != 0
			size = fragmentLen
			if offset == 0 && !more {
				break // atomic: RFC 6946
			}
			if in.Fragment != Whole {
				return 0, 0, BadFragment
			}
			in.FragID = binary.BigEndian.Uint32(h[4:])
			if fault := fragment(in, offset, len(b)-at-fragmentLen, more, h[0]); fault != OK {
				return 0, 0, fault
			}
			if in.Fragment == LaterFragment {
				return at + fragmentLen, h[0], OK
			}
		}
		next = h[0]
		if at += size; at > len(b) {
			return 0, 0, short(in)
		}
	}
	return at, next, OK
}
