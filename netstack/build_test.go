package netstack

import (
	"encoding/binary"
	"net"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"patronus/netstack/packet"
)

// spec says what packet a test wants; gopacket builds it, so that builder and
// code under test share nothing. Addresses decide the family.
type spec struct {
	src, dst string
	ttl      uint8
	tos      uint8
	df       bool
	id       uint16
	l4       gopacket.SerializableLayer
	payload  []byte
}

func (s spec) v6() bool { return net.ParseIP(s.src).To4() == nil }

func (s spec) build(tb testing.TB) []byte {
	tb.Helper()
	if s.ttl == 0 {
		s.ttl = 64
	}
	var proto layers.IPProtocol
	switch s.l4.(type) {
	case *layers.TCP:
		proto = layers.IPProtocolTCP
	case *layers.UDP:
		proto = layers.IPProtocolUDP
	case *layers.ICMPv4:
		proto = layers.IPProtocolICMPv4
	case *layers.ICMPv6:
		proto = layers.IPProtocolICMPv6
	}
	var network gopacket.NetworkLayer
	var list []gopacket.SerializableLayer
	if s.v6() {
		ip := &layers.IPv6{
			Version: 6, TrafficClass: s.tos, HopLimit: s.ttl, NextHeader: proto,
			SrcIP: net.ParseIP(s.src), DstIP: net.ParseIP(s.dst),
		}
		network, list = ip, append(list, ip)
	} else {
		ip := &layers.IPv4{
			Version: 4, TOS: s.tos, TTL: s.ttl, Id: s.id, Protocol: proto,
			SrcIP: net.ParseIP(s.src).To4(), DstIP: net.ParseIP(s.dst).To4(),
		}
		if s.df {
			ip.Flags = layers.IPv4DontFragment
		}
		network, list = ip, append(list, ip)
	}
	if l, ok := s.l4.(interface {
		SetNetworkLayerForChecksum(gopacket.NetworkLayer) error
	}); ok {
		if err := l.SetNetworkLayerForChecksum(network); err != nil {
			tb.Fatal(err)
		}
	}
	list = append(list, s.l4)
	if s.payload != nil {
		list = append(list, gopacket.Payload(s.payload))
	}
	buf := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, list...); err != nil {
		tb.Fatal(err)
	}
	return buf.Bytes()
}

func datagram(src, dst string, sport, dport uint16, n int) spec {
	return spec{src: src, dst: dst, l4: &layers.UDP{SrcPort: layers.UDPPort(sport), DstPort: layers.UDPPort(dport)}, payload: make([]byte, n)}
}

// tcp is a segment with the flags named by letters: S, A, F, R.
func segment(src, dst string, sport, dport uint16, flags string, n int) spec {
	t := &layers.TCP{SrcPort: layers.TCPPort(sport), DstPort: layers.TCPPort(dport), Seq: 1000, Ack: 2000, Window: 500}
	for _, f := range flags {
		switch f {
		case 'S':
			t.SYN = true
			t.Options = []layers.TCPOption{{OptionType: layers.TCPOptionKindMSS, OptionLength: 4, OptionData: []byte{0x05, 0xb4}}}
		case 'A':
			t.ACK = true
		case 'F':
			t.FIN = true
		case 'R':
			t.RST = true
		}
	}
	s := spec{src: src, dst: dst, l4: t}
	if n > 0 {
		s.payload = make([]byte, n)
	}
	return s
}

func echo(src, dst string, id uint16, n int) spec {
	s := spec{src: src, dst: dst, payload: make([]byte, n)}
	if s.v6() {
		head := []byte{byte(id >> 8), byte(id), 0, 1}
		s.l4 = &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(layers.ICMPv6TypeEchoRequest, 0)}
		s.payload = append(head, s.payload...)
	} else {
		s.l4 = &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(layers.ICMPv4TypeEchoRequest, 0), Id: id, Seq: 1}
	}
	return s
}

// unreachable is an ICMP error about quoted, from src to the quoted sender.
func unreachable(tb testing.TB, src string, quoted []byte) []byte {
	tb.Helper()
	q := decode(tb, quoted)
	s := spec{src: src, dst: q.Key.Src.Netip().String()}
	if s.v6() {
		s.l4 = &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(layers.ICMPv6TypeDestinationUnreachable, layers.ICMPv6CodePortUnreachable)}
		s.payload = append(make([]byte, 4), quoted...)
	} else {
		s.l4 = &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(layers.ICMPv4TypeDestinationUnreachable, layers.ICMPv4CodePort)}
		s.payload = quoted[:min(len(quoted), 28)]
	}
	return s.build(tb)
}

func decode(tb testing.TB, b []byte) packet.Info {
	tb.Helper()
	var in packet.Info
	if f := packet.Decode(b, &in); f != packet.OK {
		tb.Fatalf("%v: % x", f, b[:min(len(b), 60)])
	}
	return in
}

// pieces cuts an IPv4 packet the way a host does, and makes IPv6 fragments by
// hand (RFC 8200, 4.5): routers do not.
func pieces(tb testing.TB, b []byte, size int) [][]byte {
	tb.Helper()
	in := decode(tb, b)
	var all [][]byte
	if in.Version == 4 {
		if err := packet.Fragments(b, &in, size, func(p []byte) { all = append(all, append([]byte(nil), p...)) }); err != nil {
			tb.Fatal(err)
		}
		return all
	}
	body, chunk := b[40:], (size-48)&^7
	for at := 0; at < len(body); at += chunk {
		end, more := at+chunk, uint16(1)
		if end >= len(body) {
			end, more = len(body), 0
		}
		p := append([]byte(nil), b[:40]...)
		p[6] = 44
		binary.BigEndian.PutUint16(p[4:], uint16(8+end-at))
		p = append(p, b[6], 0)
		p = binary.BigEndian.AppendUint16(p, uint16(at)|more)
		p = binary.BigEndian.AppendUint32(p, 0x1234)
		all = append(all, append(p, body[at:end]...))
	}
	return all
}

// answer is what an ICMP error or reset says.
type answer struct {
	proto, kind, code uint8
	mtu               int
	src, dst          string
	reset             bool
}

func readAnswer(tb testing.TB, b []byte) answer {
	tb.Helper()
	in := decode(tb, b)
	a := answer{proto: in.Key.Proto, kind: in.ICMPType, code: in.ICMPCode, src: in.Key.Src.Netip().String(), dst: in.Key.Dst.Netip().String()}
	switch {
	case in.Key.Proto == packet.TCP:
		a.reset = in.Flags&packet.FlagRST != 0
	case in.Key.Proto == packet.ICMP && a.kind == 3 && a.code == 4:
		a.mtu = int(binary.BigEndian.Uint16(b[in.L4+6:]))
	case in.Key.Proto == packet.ICMPv6 && a.kind == 2:
		a.mtu = int(binary.BigEndian.Uint32(b[in.L4+4:]))
	}
	return a
}
