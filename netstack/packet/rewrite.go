package packet

import (
	"encoding/binary"
	"math/bits"
)

// ECN codepoints (RFC 3168, 5).
const (
	ecnMask   = 3
	ecnNotECT = 0
	ecnCE     = 3
)

// DecrementTTL takes one hop off the packet decoded into in. It returns false,
// and changes nothing, if the packet's life ends here. The IPv4 header
// checksum is updated incrementally (RFC 1624). in follows.
func DecrementTTL(b []byte, in *Info) bool {
	if in.TTL <= 1 {
		return false
	}
	in.TTL--
	if in.Version == 6 {
		b[7]--
		return true
	}
	set4(b, 8, binary.BigEndian.Uint16(b[8:])-0x100)
	return true
}

// MarkECN sets Congestion Experienced on an ECN-capable packet. It returns
// false, and changes nothing, if the packet is not: then congestion is told by
// dropping it (RFC 3168, 5).
func MarkECN(b []byte, in *Info) bool {
	if in.TOS&ecnMask == ecnNotECT {
		return false
	}
	setTOS(b, in, in.TOS|ecnCE)
	return true
}

// MergeECN applies the outer header's TOS octet to the inner packet as it
// leaves a tunnel (RFC 6040, 4.2). It returns false if the packet must be
// dropped: congestion was met and the inner packet cannot carry the news.
func MergeECN(b []byte, in *Info, outer uint8) bool {
	if outer&ecnMask != ecnCE {
		// ECT(1) over ECT(0) is the one other pair that the inner takes over.
		if outer&ecnMask == 1 && in.TOS&ecnMask == 2 {
			setTOS(b, in, in.TOS&^ecnMask|1)
		}
		return true
	}
	return MarkECN(b, in)
}

// SetDSCP writes a differentiated services codepoint, 0..63 (RFC 2474). ECN is
// kept; in follows.
func SetDSCP(b []byte, in *Info, dscp uint8) {
	setTOS(b, in, dscp<<2|in.TOS&ecnMask)
}

func setTOS(b []byte, in *Info, tos uint8) {
	if tos == in.TOS {
		return
	}
	in.TOS = tos
	if in.Version == 6 {
		b[0] = b[0]&0xf0 | tos>>4
		b[1] = b[1]&0x0f | tos<<4
		return
	}
	set4(b, 0, uint16(b[0])<<8|uint16(tos))
}

// set4 writes a word of an IPv4 header and updates the header checksum.
func set4(b []byte, at int, now uint16) {
	old := binary.BigEndian.Uint16(b[at:])
	binary.BigEndian.PutUint16(b[at:], now)
	binary.BigEndian.PutUint16(b[10:], replaced(binary.BigEndian.Uint16(b[10:]), old, now))
}

// TCP options (RFC 9293, 3.2).
const (
	optionEnd    = 0
	optionNOP    = 1
	optionMSS    = 2
	optionMSSLen = 4
)

// ClampMSS lowers the maximum segment size that a SYN offers to what fits mtu,
// the MTU of the inner IP packet in bytes, and reports whether it did. A SYN
// without the option is left alone: its sender counts on 536 or 1220 bytes.
// The checksum is updated incrementally (RFC 1624), so it must be complete;
// Buffer.ClampMSS sees to that.
func ClampMSS(b []byte, in *Info, mtu int) bool {
	if !offersMSS(in) {
		return false
	}
	limit := mtu - ipv4Len - tcpLen
	if in.Version == 6 {
		limit = mtu - ipv6Len - tcpLen
	}
	if limit < 1 || limit > 0xffff {
		return false
	}
	at := mssOption(b[in.L4:in.Payload])
	if at == 0 {
		return false
	}
	tcp := b[in.L4:in.Payload]
	old, now := binary.BigEndian.Uint16(tcp[at:]), uint16(limit)
	if old <= now {
		return false
	}
	binary.BigEndian.PutUint16(tcp[at:], now)
	if at%2 == 1 {
		// The value straddles two words of the sum, which is the same as
		// adding it with its bytes exchanged (RFC 1071, 2(B)).
		old, now = bits.ReverseBytes16(old), bits.ReverseBytes16(now)
	}
	sum := tcp[tcpCsum:]
	binary.BigEndian.PutUint16(sum, replaced(binary.BigEndian.Uint16(sum), old, now))
	return true
}

// ClampMSS is the function of that name for a buffer; a partial checksum is
// completed first.
func (b *Buffer) ClampMSS(mtu int) bool {
	if b.decode() != OK || !offersMSS(&b.Info) {
		return false
	}
	b.FinishChecksum()
	return ClampMSS(b.Bytes, &b.Info, mtu)
}

func offersMSS(in *Info) bool {
	return in.Key.Proto == TCP && in.Flags&FlagSYN != 0 && in.Fragment == Whole
}

// mssOption finds the value of the MSS option in a TCP header; 0 if there is
// none, or the options before it make no sense.
func mssOption(tcp []byte) int {
	for at := tcpLen; at < len(tcp); {
		switch tcp[at] {
		case optionEnd:
			return 0
		case optionNOP:
			at++
			continue
		}
		if at+2 > len(tcp) {
			return 0
		}
		n := int(tcp[at+1])
		if n < 2 || at+n > len(tcp) {
			return 0
		}
		if tcp[at] == optionMSS && n == optionMSSLen {
			return at + 2
		}
		at += n
	}
	return 0
}
