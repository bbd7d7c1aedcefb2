package packet

import (
	"encoding/binary"
	"net/netip"
	"slices"
)

// Unreachable says why a packet was not delivered.
type Unreachable uint8

// The reasons, with their codes in ICMP (RFC 792, RFC 1812 5.2.7.1) and
// ICMPv6 (RFC 4443, 3.1).
const (
	NoRoute         Unreachable = iota // 0, 0
	Host                               // 1, 3 (address unreachable)
	Port                               // 3, 4
	AdminProhibited                    // 13, 1
)

const (
	icmp4Unreachable, icmp4TimeExceeded              = 3, 11
	icmp6Unreachable, icmp6TooBig, icmp6TimeExceeded = 1, 2, 3
	icmp6Redirect                                    = 137
	icmp4FragNeeded                                  = 4
	answer4Max                                       = 576  // RFC 1812, 4.3.2.3
	answer6Max                                       = 1280 // RFC 4443, 2.4(c)
	answerTTL                                        = 64
	answerTOS                                        = 0xc0 // internetwork control: RFC 1812, 4.3.2.5
	minMTU4, minMTU6                                 = 68, 1280
)

var (
	unreachable4 = [...]uint8{NoRoute: 0, Host: 1, Port: 3, AdminProhibited: 13}
	unreachable6 = [...]uint8{NoRoute: 0, Host: 3, Port: 4, AdminProhibited: 1}
)

// AppendTimeExceeded appends to dst the ICMP message that tells orig's sender
// that its TTL or hop limit ran out on the way, from src, an address of ours
// of the packet's family. It returns the extended slice, or nil if the
// standard forbids an answer (RFC 1122 3.2.2, RFC 4443 2.4(e)): to an ICMP
// error, to a later fragment, to multicast or broadcast, to a source that is no
// single host or that is src. orig, decoded into in, is borrowed.
func AppendTimeExceeded(dst, orig []byte, in *Info, src netip.Addr) []byte {
	return appendError(dst, orig, in, src, icmp4TimeExceeded, 0, icmp6TimeExceeded, 0, 0)
}

// AppendUnreachable is AppendTimeExceeded for a packet that cannot be
// delivered.
func AppendUnreachable(dst, orig []byte, in *Info, src netip.Addr, why Unreachable) []byte {
	if int(why) >= len(unreachable4) {
		return nil
	}
	return appendError(dst, orig, in, src, icmp4Unreachable, unreachable4[why], icmp6Unreachable, unreachable6[why], 0)
}

// AppendTooBig is AppendTimeExceeded for a packet that is larger than the next
// link's mtu, bytes: "fragmentation needed" for IPv4 (RFC 1191), "packet too
// big" for IPv6, which answers multicast too (RFC 4443, 3.2). It returns nil
// as well for an IPv4 packet without DF, which is to be fragmented, and for an
// IPv6 packet of at most 1280 bytes, which every link has to carry; a smaller
// mtu than that is not announced (RFC 8021, RFC 8200 5).
func AppendTooBig(dst, orig []byte, in *Info, src netip.Addr, mtu int) []byte {
	if in.Version == 4 {
		if binary.BigEndian.Uint16(orig[6:])&fragDF == 0 {
			return nil
		}
		mtu = min(max(mtu, minMTU4), 0xffff)
	} else {
		mtu = max(mtu, minMTU6)
		if in.Length <= minMTU6 {
			return nil
		}
	}
	return appendError(dst, orig, in, src, icmp4Unreachable, icmp4FragNeeded, icmp6TooBig, 0, uint32(mtu))
}

// appendError builds an ICMP error; word is the second one of its header.
func appendError(dst, orig []byte, in *Info, src netip.Addr, kind4, code4, kind6, code6 uint8, word uint32) []byte {
	v4 := in.Version == 4
	if !answerable(in, !v4 && kind6 == icmp6TooBig) || !src.IsValid() || src.Unmap().Is4() != v4 {
		return nil
	}
	if AddrFrom(src) == in.Key.Src {
		return nil // forged in our name
	}
	orig = orig[:in.Length]
	start := len(dst)
	if v4 {
		orig = orig[:min(len(orig), answer4Max-ipv4Len-icmpLen)]
		dst = extend(dst, ipv4Len+icmpLen)
		dst = append(dst, orig...)
		p := dst[start:]
		putHeader4((*[ipv4Len]byte)(p), src.Unmap().As4(), [4]byte(in.Key.Src[12:]), ICMP, answerTOS, answerTTL, len(p))
		putICMP(p[ipv4Len:], kind4, code4, word, 0)
		return dst
	}
	orig = orig[:min(len(orig), answer6Max-ipv6Len-icmpLen)]
	dst = extend(dst, ipv6Len+icmpLen)
	dst = append(dst, orig...)
	p := dst[start:]
	n := len(p) - ipv6Len
	putHeader6((*[ipv6Len]byte)(p), src.As16(), in.Key.Src, ICMPv6, answerTTL, n)
	putICMP(p[ipv6Len:], kind6, code6, word, sumAddrs(p, 6)+ICMPv6+uint64(n))
	return dst
}

// extend lengthens dst by n bytes of undefined content.
func extend(dst []byte, n int) []byte { return slices.Grow(dst, n)[:len(dst)+n] }

func putICMP(h []byte, kind, code uint8, word uint32, pseudo uint64) {
	h[0], h[1], h[2], h[3] = kind, code, 0, 0
	binary.BigEndian.PutUint32(h[4:], word)
	binary.BigEndian.PutUint16(h[2:], ^Checksum(h, pseudo))
}

// answerable reports whether an ICMP error may be sent about a packet. A
// directed broadcast is not recognised: that takes the prefix of its link.
func answerable(in *Info, multicastToo bool) bool {
	src, dst := &in.Key.Src, &in.Key.Dst
	if in.Version == 4 {
		return in.Fragment != LaterFragment && src[12] != 0 && src[12] != 127 && src[12] < 224 && dst[12] < 224 &&
			(in.Key.Proto != ICMP || icmp4Query(in.ICMPType))
	}
	return in.Version == 6 && in.Fragment != LaterFragment && src[0] != 0xff && *src != (Addr{}) &&
		(dst[0] != 0xff || multicastToo) &&
		(in.Key.Proto != ICMPv6 || !isICMPError(ICMPv6, in.ICMPType) && in.ICMPType != icmp6Redirect)
}

// icmp4Query reports whether a type is known to be no error message; an
// unknown one may be, and is not answered.
func icmp4Query(kind uint8) bool {
	switch kind {
	case 0, 8, 9, 10, 13, 14, 15, 16, 17, 18, 42, 43:
		return true
	}
	return false
}

// AppendReset appends to dst the TCP reset that refuses orig in the name of
// its destination (RFC 9293, 3.5.2 and 3.10.7.1). It returns the extended
// slice, or nil if orig is no whole TCP segment, is a reset itself, or does
// not go from one host to one host. orig, decoded into in, is borrowed.
func AppendReset(dst, orig []byte, in *Info) []byte {
	if in.Key.Proto != TCP || in.Fragment != Whole || in.Flags&FlagRST != 0 || !answerable(in, false) {
		return nil
	}
	tcp := orig[in.L4:in.Payload]
	seq, ack, flags := uint32(0), uint32(0), uint8(FlagRST)
	if in.Flags&FlagACK != 0 {
		seq = binary.BigEndian.Uint32(tcp[8:])
	} else {
		flags |= FlagACK
		ack = binary.BigEndian.Uint32(tcp[tcpSeq:]) + in.Length - uint32(in.Payload)
		if in.Flags&FlagSYN != 0 {
			ack++
		}
		if in.Flags&FlagFIN != 0 {
			ack++
		}
	}
	start, header := len(dst), ipv4Len
	if in.Version == 6 {
		header = ipv6Len
	}
	dst = extend(dst, header+tcpLen)
	p := dst[start:]
	if in.Version == 4 {
		putHeader4((*[ipv4Len]byte)(p), [4]byte(in.Key.Dst[12:]), [4]byte(in.Key.Src[12:]), TCP, 0, answerTTL, len(p))
	} else {
		putHeader6((*[ipv6Len]byte)(p), in.Key.Dst, in.Key.Src, TCP, answerTTL, tcpLen)
	}
	h := p[header:]
	clear(h)
	copy(h, tcp[2:4])
	copy(h[2:], tcp[:2])
	binary.BigEndian.PutUint32(h[tcpSeq:], seq)
	binary.BigEndian.PutUint32(h[8:], ack)
	h[tcpOffset], h[tcpFlags] = tcpLen/4<<4, flags
	binary.BigEndian.PutUint16(h[tcpCsum:], ^Checksum(h, sumAddrs(p, in.Version)+TCP+tcpLen))
	return dst
}
