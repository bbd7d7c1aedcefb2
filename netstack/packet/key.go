package packet

import "net/netip"

// Protocol numbers (IANA).
const (
	ICMP   = 1
	IPIP   = 4
	TCP    = 6
	UDP    = 17
	IPv6IP = 41
	ICMPv6 = 58
	SCTP   = 132
)

// Addr is an address without pointers, so that it is cheap in map keys. IPv4
// is kept IPv4-mapped (RFC 4291, 2.5.5.2).
type Addr [16]byte

// AddrFrom converts; a zone is dropped.
func AddrFrom(a netip.Addr) Addr { return a.As16() }

// Netip converts back; mapped IPv4 comes out as IPv4.
func (a Addr) Netip() netip.Addr { return netip.AddrFrom16(a).Unmap() }

// Is4 reports whether a is a (mapped) IPv4 address.
func (a *Addr) Is4() bool {
	return a[0] == 0 && a[1] == 0 && a[2] == 0 && a[3] == 0 && a[4] == 0 && a[5] == 0 &&
		a[6] == 0 && a[7] == 0 && a[8] == 0 && a[9] == 0 && a[10] == 0xff && a[11] == 0xff
}

// Key names a conversation in one direction. For ICMP echo both ports are the
// identifier, so that the reply's key is the reverse of the request's; for
// other protocols without ports they are 0.
type Key struct {
	Src, Dst         Addr
	SrcPort, DstPort uint16
	Proto            uint8
	_                [3]byte
}

// NewKey builds a key from the types that people use.
func NewKey(proto uint8, src, dst netip.AddrPort) Key {
	return Key{Src: AddrFrom(src.Addr()), Dst: AddrFrom(dst.Addr()), SrcPort: src.Port(), DstPort: dst.Port(), Proto: proto}
}

// Reverse is the key of the opposite direction.
func (k Key) Reverse() Key {
	return Key{Src: k.Dst, Dst: k.Src, SrcPort: k.DstPort, DstPort: k.SrcPort, Proto: k.Proto}
}
