package packet

import "encoding/binary"

// isICMPError reports whether an ICMP message of this type quotes a packet
// that it complains about (RFC 1122, 3.2.2; RFC 4443, 2.1).
func isICMPError(proto, kind uint8) bool {
	if proto == ICMPv6 {
		return kind < 128
	}
	switch kind {
	case 3, 4, 5, 11, 12:
		return true
	}
	return false
}

// DecodeQuoted returns the key of the packet that an ICMP error quotes: b is
// the error, in what Decode made of it. ok is false if b is no ICMP error, or
// if the quoted packet cannot be told: cut before its ports, a later fragment,
// or not sent by the host that is told of the error. The quotation may be cut
// after 8 bytes of the transport header (RFC 792).
func DecodeQuoted(b []byte, in *Info) (Key, bool) {
	proto := in.Key.Proto
	if in.Fragment != Whole || in.Payload == in.L4 || proto != ICMP && proto != ICMPv6 || !isICMPError(proto, in.ICMPType) {
		return Key{}, false
	}
	q := b[in.Payload:in.Length]
	var k Key
	var at int
	var ok bool
	if proto == ICMP {
		k, at, ok = quoted4(q)
	} else {
		k, at, ok = quoted6(q)
	}
	if !ok || k.Src != in.Key.Dst {
		return Key{}, false
	}
	h := q[at:]
	switch k.Proto {
	case TCP, UDP, SCTP:
		if len(h) < 4 {
			return Key{}, false
		}
		k.SrcPort, k.DstPort = binary.BigEndian.Uint16(h), binary.BigEndian.Uint16(h[2:])
	case proto:
		if len(h) < 6 || isICMPError(proto, h[0]) {
			return Key{}, false
		}
		if isEcho(proto, h[0]) {
			id := binary.BigEndian.Uint16(h[4:])
			k.SrcPort, k.DstPort = id, id
		}
	}
	return k, true
}

func quoted4(q []byte) (k Key, at int, ok bool) {
	if len(q) < ipv4Len || q[0]>>4 != 4 {
		return k, 0, false
	}
	at = int(q[0]&0xf) * 4
	if at < ipv4Len || at > len(q) || binary.BigEndian.Uint16(q[6:])&fragOffset != 0 {
		return k, 0, false
	}
	k.Src[10], k.Src[11], k.Dst[10], k.Dst[11] = 0xff, 0xff, 0xff, 0xff
	copy(k.Src[12:], q[12:16])
	copy(k.Dst[12:], q[16:20])
	k.Proto = q[9]
	return k, at, true
}

func quoted6(q []byte) (k Key, at int, ok bool) {
	if len(q) < ipv6Len || q[0]>>4 != 6 {
		return k, 0, false
	}
	var in Info
	// Cut to a multiple of 8, as the quotation of a first fragment may not be.
	at, proto, fault := extensions(q[:len(q)&^7], q[6], &in)
	if fault != OK || in.Fragment == LaterFragment {
		return k, 0, false
	}
	return Key{Src: [16]byte(q[8:24]), Dst: [16]byte(q[24:40]), Proto: proto}, at, true
}
