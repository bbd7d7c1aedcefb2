package packet

import (
	"encoding/binary"
	"net"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

// spec says what packet a test wants; gopacket builds it, so that builder and
// code under test share nothing.
type spec struct {
	v6       bool
	src, dst string
	tos, ttl uint8
	df       bool
	id       uint16
	options  []layers.IPv4Option
	l4       gopacket.SerializableLayer // *layers.TCP, *layers.UDP, *layers.ICMPv4...
	proto    layers.IPProtocol          // only where l4 is nil
	payload  []byte
}

func (s spec) build(t testing.TB) []byte {
	t.Helper()
	if s.src == "" {
		s.src, s.dst = "10.0.0.1", "10.0.1.2"
		if s.v6 {
			s.src, s.dst = "2001:db8::1", "2001:db8:1::2"
		}
	}
	if s.ttl == 0 {
		s.ttl = 64
	}
	proto := s.proto
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
	if s.v6 {
		ip := &layers.IPv6{
			Version: 6, TrafficClass: s.tos, HopLimit: s.ttl, NextHeader: proto,
			SrcIP: net.ParseIP(s.src), DstIP: net.ParseIP(s.dst),
		}
		network, list = ip, append(list, ip)
	} else {
		ip := &layers.IPv4{
			Version: 4, TOS: s.tos, TTL: s.ttl, Id: s.id, Protocol: proto, Options: s.options,
			SrcIP: net.ParseIP(s.src).To4(), DstIP: net.ParseIP(s.dst).To4(),
		}
		if s.df {
			ip.Flags = layers.IPv4DontFragment
		}
		network, list = ip, append(list, ip)
	}
	if s.l4 != nil {
		if l, ok := s.l4.(interface {
			SetNetworkLayerForChecksum(gopacket.NetworkLayer) error
		}); ok {
			if err := l.SetNetworkLayerForChecksum(network); err != nil {
				t.Fatal(err)
			}
		}
		list = append(list, s.l4)
	}
	list = append(list, gopacket.Payload(s.payload))
	buf := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, list...); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func tcpPacket(t testing.TB, v6 bool, payload int) []byte {
	return spec{v6: v6, l4: &layers.TCP{SrcPort: 40000, DstPort: 443, Seq: 7, Ack: 9, ACK: true, Window: 500}, payload: pattern(payload)}.build(t)
}

func udpPacket(t testing.TB, v6 bool, payload int) []byte {
	return spec{v6: v6, l4: &layers.UDP{SrcPort: 5000, DstPort: 7777}, payload: pattern(payload)}.build(t)
}

// pattern is n bytes of which no two 16-bit words in a row are the same.
func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*7 + i>>8)
	}
	return b
}

func mustDecode(t testing.TB, b []byte) Info {
	t.Helper()
	var in Info
	if f := Decode(b, &in); f != OK {
		t.Fatalf("Decode: %v of % x", f, b[:min(len(b), 64)])
	}
	return in
}

// refix recomputes an IPv4 header checksum after a test has changed the header.
func refix(b []byte) []byte {
	n := int(b[0]&0xf) * 4
	b[10], b[11] = 0, 0
	binary.BigEndian.PutUint16(b[10:], ^naive(b[:n], 0))
	return b
}

// naive is the sum as RFC 1071 defines it.
func naive(b []byte, initial uint32) uint16 {
	sum := initial
	for i := 0; i < len(b); i += 2 {
		w := uint32(b[i]) << 8
		if i+1 < len(b) {
			w |= uint32(b[i+1])
		}
		sum += w
		for sum > 0xffff {
			sum = sum>>16 + sum&0xffff
		}
	}
	return uint16(sum)
}

// verify checks each checksum of a whole packet by the naive sum.
func verify(t testing.TB, b []byte) Info {
	t.Helper()
	in := mustDecode(t, b)
	b = b[:in.Length]
	var pseudo uint16
	switch in.Version {
	case 4:
		if naive(b[:int(b[0]&0xf)*4], 0) != 0xffff {
			t.Fatalf("IPv4 header checksum of % x", b[:20])
		}
		pseudo = naive(b[12:20], 0)
	case 6:
		pseudo = naive(b[8:40], 0)
	}
	n := uint32(len(b)) - uint32(in.L4)
	sum := uint32(pseudo) + n>>16 + n&0xffff + uint32(in.Key.Proto)
	switch in.Key.Proto {
	case ICMP:
		sum = 0
	case TCP, ICMPv6:
	case UDP:
		if b[in.L4+6] == 0 && b[in.L4+7] == 0 && in.Version == 4 {
			return in
		}
	default:
		return in
	}
	if got := naive(b[in.L4:], sum); got != 0xffff {
		t.Fatalf("transport checksum: sum %#04x, protocol %d, length %d", got, in.Key.Proto, len(b))
	}
	return in
}
