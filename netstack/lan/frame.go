package lan

import (
	"encoding/binary"
	"net/netip"

	"patronus/netstack/packet"
)

// Ethernet (IEEE 802.3, 802.1Q).
const (
	ethLen   = 14
	vlanLen  = 4
	ethIPv4  = 0x0800
	ethARP   = 0x0806
	ethIPv6  = 0x86dd
	ethVLAN  = 0x8100
	vlanMask = 0x0fff
)

// fate is what becomes of a received frame.
type fate uint8

const (
	fateIP      fate = iota // an IP packet to be forwarded: to Read
	fateControl             // ARP, NDP, multicast: to the Control callback
	fateDrop
)

// classify decides about the Ethernet frame b, whose VLAN tag is already off.
// own is the port's link address.
func classify(b []byte, own *[6]byte) (fate, Drop) {
	if len(b) < ethLen {
		return fateDrop, DropMalformed
	}
	group := b[0]&1 != 0
	if !group && [6]byte(b) != *own {
		return fateDrop, DropNotOurs
	}
	if [6]byte(b[6:]) == *own {
		return fateDrop, DropLooped
	}
	ip := b[ethLen:]
	switch binary.BigEndian.Uint16(b[12:]) {
	case ethARP:
		return fateControl, 0
	case ethIPv4:
		if len(ip) < ipv4Len {
			return fateDrop, DropMalformed
		}
	case ethIPv6:
		if len(ip) < ipv6Len {
			return fateDrop, DropMalformed
		}
		if isNDP(ip) {
			return fateControl, 0
		}
	default:
		return fateDrop, DropMalformed
	}
	if group {
		return fateControl, 0
	}
	return fateIP, 0
}

// isNDP reports whether the IPv6 packet is neighbour discovery: router and
// neighbour solicitation and advertisement, redirect (RFC 4861, 4). Such
// packets have no extension headers worth looking behind (RFC 6980).
func isNDP(ip []byte) bool {
	return ip[6] == packet.ICMPv6 && len(ip) > ipv6Len && ip[ipv6Len] >= 133 && ip[ipv6Len] <= 137
}

// unpad cuts link padding off the IP packet b, as far as its header is
// believable; what is not is left for Decode to refuse.
func unpad(b []byte) []byte {
	n := 0
	switch {
	case len(b) >= ipv4Len && b[0]>>4 == 4:
		n = int(binary.BigEndian.Uint16(b[2:]))
	case len(b) >= ipv6Len && b[0]>>4 == 6:
		n = ipv6Len + int(binary.BigEndian.Uint16(b[4:]))
	}
	if n >= ipv4Len && n < len(b) {
		return b[:n]
	}
	return b
}

// announced reads what a frame says of a neighbour: the sender of an ARP packet
// (RFC 826), the target of a neighbour advertisement (RFC 4861, 4.4).
func announced(b []byte) (addr packet.Addr, mac [6]byte, ok bool) {
	body := b[ethLen:]
	switch binary.BigEndian.Uint16(b[12:]) {
	case ethARP:
		// Ethernet, IPv4, 6 and 4 bytes long.
		if len(body) < 28 || [6]byte(body) != [6]byte{0, 1, 8, 0, 6, 4} {
			return addr, mac, false
		}
		return packet.AddrFrom(netip.AddrFrom4([4]byte(body[14:]))), [6]byte(body[8:]), true
	case ethIPv6:
		// A target link-layer address that is the first option, hop limit 255.
		const target, option = ipv6Len + 8, ipv6Len + 24
		if len(body) < option+8 || !isNDP(body) || body[ipv6Len] != 136 || body[7] != 255 ||
			body[option] != 2 || body[option+1] != 1 {
			return addr, mac, false
		}
		return packet.Addr(body[target:option]), [6]byte(body[option+2:]), true
	}
	return addr, mac, false
}

// groupMAC is the link address of a multicast or limited broadcast address (RFC
// 1112 6.4, RFC 2464 7); false for unicast.
func groupMAC(a *packet.Addr) ([6]byte, bool) {
	switch {
	case a.Is4() && a[12] == 255 && a[13] == 255 && a[14] == 255 && a[15] == 255:
		return [6]byte{255, 255, 255, 255, 255, 255}, true
	case a.Is4() && a[12]>>4 == 14:
		return [6]byte{0x01, 0x00, 0x5e, a[13] & 0x7f, a[14], a[15]}, true
	case a[0] == 255:
		return [6]byte{0x33, 0x33, a[12], a[13], a[14], a[15]}, true
	}
	return [6]byte{}, false
}

// putEth writes an Ethernet header to b and returns its length: 14 bytes, 18
// with a VLAN tag.
func putEth(b []byte, dst, src *[6]byte, vlan, etherType uint16) int {
	copy(b, dst[:])
	copy(b[6:], src[:])
	n := 12
	if vlan != 0 {
		binary.BigEndian.PutUint16(b[n:], ethVLAN)
		binary.BigEndian.PutUint16(b[n+2:], vlan)
		n += vlanLen
	}
	binary.BigEndian.PutUint16(b[n:], etherType)
	return n + 2
}

func etherTypeOf(ip []byte) uint16 {
	if ip[0]>>4 == 6 {
		return ethIPv6
	}
	return ethIPv4
}
