package lan

import (
	"encoding/binary"
	"net/netip"
	"sync"
	"testing"

	"patronus/netstack/packet"
)

// station is the host side of a Packet port, as small as a test can do with: it
// answers ARP and neighbour solicitations for its addresses, and asks.
type station struct {
	t     *testing.T
	addrs []netip.Addr
	port  *Packet // set before the port is read

	mu    sync.Mutex
	known map[netip.Addr][6]byte
	asked map[netip.Addr][]func([6]byte, bool)
}

func newStation(t *testing.T, addrs ...netip.Addr) *station {
	return &station{t: t, addrs: addrs, known: map[netip.Addr][6]byte{}, asked: map[netip.Addr][]func([6]byte, bool){}}
}

func (s *station) own(a netip.Addr) bool {
	for _, o := range s.addrs {
		if o == a {
			return true
		}
	}
	return false
}

func (s *station) source(a netip.Addr) netip.Addr {
	for _, o := range s.addrs {
		if o.Is4() == a.Is4() {
			return o
		}
	}
	return a
}

func (s *station) Resolve(a netip.Addr, done func([6]byte, bool)) ([6]byte, bool) {
	s.mu.Lock()
	if mac, ok := s.known[a]; ok {
		s.mu.Unlock()
		return mac, true
	}
	s.asked[a] = append(s.asked[a], done)
	s.mu.Unlock()
	if a.Is4() {
		s.send(arpFrame(1, s.port.MAC(), s.source(a), [6]byte{}, a))
	} else {
		s.send(ndpFrame(135, s.port.MAC(), s.source(a), a, a))
	}
	return [6]byte{}, false
}

func (s *station) send(frame []byte) {
	if err := s.port.WriteFrame(frame); err != nil {
		s.t.Errorf("write frame: %v", err)
	}
}

// control takes a port's Control frames.
func (s *station) control(f []byte) {
	body := f[ethLen:]
	switch binary.BigEndian.Uint16(f[12:]) {
	case ethARP:
		from, target := netip.AddrFrom4([4]byte(body[14:])), netip.AddrFrom4([4]byte(body[24:]))
		s.heard(from, [6]byte(body[8:]))
		if body[7] == 1 && s.own(target) {
			s.send(arpFrame(2, s.port.MAC(), target, [6]byte(body[8:]), from))
		}
	case ethIPv6:
		if !isNDP(body) || len(body) < ipv6Len+24 {
			return
		}
		from, target := netip.AddrFrom16([16]byte(body[8:])), netip.AddrFrom16([16]byte(body[ipv6Len+8:]))
		if body[ipv6Len] == 135 && s.own(target) {
			answer := ndpFrame(136, s.port.MAC(), target, from, target)
			copy(answer[:6], f[6:12])
			s.send(answer)
		}
		if _, mac, ok := announced(f); ok {
			s.heard(target, mac)
		}
	}
}

func (s *station) heard(a netip.Addr, mac [6]byte) {
	s.mu.Lock()
	s.known[a] = mac
	waiting := s.asked[a]
	delete(s.asked, a)
	s.mu.Unlock()
	for _, done := range waiting {
		done(mac, true)
	}
}

func arpFrame(op byte, mac [6]byte, from netip.Addr, toMAC [6]byte, to netip.Addr) []byte {
	dst := toMAC
	if op == 1 {
		dst = [6]byte{255, 255, 255, 255, 255, 255}
	}
	f := make([]byte, ethLen, 60)
	putEth(f, &dst, &mac, 0, ethARP)
	f = append(f, 0, 1, 8, 0, 6, 4, 0, op)
	f = append(f, mac[:]...)
	f = append(f, from.AsSlice()...)
	f = append(f, toMAC[:]...)
	return append(f, to.AsSlice()...)
}

// ndpFrame builds a solicitation (135) to target's group or an advertisement
// (136) to dst, whose link address the caller fills in.
func ndpFrame(kind byte, mac [6]byte, from, dst, target netip.Addr) []byte {
	to := packet.AddrFrom(dst)
	option := byte(2)
	if kind == 135 {
		option = 1
		low := target.As16()
		to = packet.Addr{0: 0xff, 1: 0x02, 11: 1, 12: 0xff, 13: low[13], 14: low[14], 15: low[15]}
	}
	group, _ := groupMAC(&to)
	f := make([]byte, ethLen+ipv6Len+32)
	putEth(f, &group, &mac, 0, ethIPv6)
	ip := f[ethLen:]
	ip[0], ip[5], ip[6], ip[7] = 0x60, 32, packet.ICMPv6, 255
	src := from.As16()
	copy(ip[8:], src[:])
	copy(ip[24:], to[:])
	icmp := ip[ipv6Len:]
	icmp[0] = kind
	if kind == 136 {
		icmp[4] = 0x60 // solicited, override
	}
	a := target.As16()
	copy(icmp[8:], a[:])
	icmp[24], icmp[25] = option, 1
	copy(icmp[26:], mac[:])
	sum := uint64(packet.Checksum(ip[8:40], 32+packet.ICMPv6))
	binary.BigEndian.PutUint16(icmp[2:], ^packet.Checksum(icmp, sum))
	return f
}
