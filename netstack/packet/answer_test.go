package packet

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

var (
	our4 = netip.MustParseAddr("10.9.9.9")
	our6 = netip.MustParseAddr("2001:db8:9::9")
)

func ours(v6 bool) netip.Addr {
	if v6 {
		return our6
	}
	return our4
}

func TestErrors(t *testing.T) {
	type build func(orig []byte, in *Info, src netip.Addr) []byte
	exceeded := func(orig []byte, in *Info, src netip.Addr) []byte { return AppendTimeExceeded(nil, orig, in, src) }
	tooBig := func(mtu int) build {
		return func(orig []byte, in *Info, src netip.Addr) []byte { return AppendTooBig(nil, orig, in, src, mtu) }
	}
	unreachable := func(why Unreachable) build {
		return func(orig []byte, in *Info, src netip.Addr) []byte { return AppendUnreachable(nil, orig, in, src, why) }
	}
	for _, c := range []struct {
		name         string
		build        build
		type4, code4 uint8
		type6, code6 uint8
		word4, word6 uint32
	}{
		{"time exceeded", exceeded, 11, 0, 3, 0, 0, 0},
		{"no route", unreachable(NoRoute), 3, 0, 1, 0, 0, 0},
		{"host", unreachable(Host), 3, 1, 1, 3, 0, 0},
		{"port", unreachable(Port), 3, 3, 1, 4, 0, 0},
		{"prohibited", unreachable(AdminProhibited), 3, 13, 1, 1, 0, 0},
		{"too big", tooBig(1400), 3, 4, 2, 0, 1400, 1400},
		{"too big, tiny MTU", tooBig(10), 3, 4, 2, 0, 68, 1280},
		{"too big, huge MTU", tooBig(70000), 3, 4, 2, 0, 65535, 70000},
	} {
		for _, v6 := range []bool{false, true} {
			for _, size := range []int{0, 1, 520, 521, 1300, 9000} {
				s := spec{v6: v6, df: true, l4: &layers.UDP{SrcPort: 7, DstPort: 8}, payload: pattern(size)}
				orig := s.build(t)
				in := mustDecode(t, orig)
				padded := append(append([]byte{}, orig...), 0xee, 0xee)
				b := c.build(padded, &in, ours(v6))
				if v6 && c.type6 == 2 && len(orig) <= 1280 {
					if b != nil {
						t.Errorf("%s: an answer to %d bytes, which every link carries", c.name, len(orig))
					}
					continue
				}
				if b == nil {
					t.Fatalf("%s: no answer", c.name)
				}
				got := verify(t, b)
				if got.Key.Src.Netip() != ours(v6) || got.Key.Dst != in.Key.Src || got.TTL != 64 || int(got.Length) != len(b) {
					t.Errorf("%s: %+v", c.name, got)
				}
				kind, code, word, limit, first := c.type4, c.code4, c.word4, 576, layers.LayerTypeIPv4
				if v6 {
					kind, code, word, limit, first = c.type6, c.code6, c.word6, 1280, layers.LayerTypeIPv6
				}
				if got.ICMPType != kind || got.ICMPCode != code || binary.BigEndian.Uint32(b[got.L4+4:]) != word {
					t.Errorf("%s: type %d code %d rest % x", c.name, got.ICMPType, got.ICMPCode, b[got.L4+4:got.L4+8])
				}
				quote := b[got.Payload:]
				if want := min(len(orig), limit-int(got.Payload)); len(b) > limit || !bytes.Equal(quote, orig[:want]) {
					t.Errorf("%s: quotes %d bytes of %d, want %d", c.name, len(quote), len(orig), want)
				}
				if p := gopacket.NewPacket(b, first, gopacket.Default); p.ErrorLayer() != nil {
					t.Errorf("%s: gopacket: %v", c.name, p.ErrorLayer().Error())
				}
				if k, ok := DecodeQuoted(b, &got); !ok || k != in.Key {
					t.Errorf("%s: DecodeQuoted: %+v %v", c.name, k, ok)
				}
			}
		}
	}
}

// What the standards forbid to answer.
func TestSuppressed(t *testing.T) {
	icmp4 := func(kind uint8) spec {
		return spec{df: true, l4: &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(kind, 0)}, payload: pattern(1400)}
	}
	icmp6 := func(kind uint8) spec {
		return spec{v6: true, l4: &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(kind, 0)}, payload: pattern(1400)}
	}
	udp := func(v6 bool, src, dst string) spec {
		return spec{v6: v6, df: true, src: src, dst: dst, l4: &layers.UDP{SrcPort: 7, DstPort: 8}, payload: pattern(1400)}
	}
	for _, c := range []struct {
		name            string
		b               []byte
		exceeded, toBig bool // is there an answer?
	}{
		{"echo", icmp4(8).build(t), true, true},
		{"echo reply", icmp4(0).build(t), true, true},
		{"timestamp", icmp4(13).build(t), true, true},
		{"unreachable", icmp4(3).build(t), false, false},
		{"source quench", icmp4(4).build(t), false, false},
		{"redirect", icmp4(5).build(t), false, false},
		{"time exceeded", icmp4(11).build(t), false, false},
		{"parameter problem", icmp4(12).build(t), false, false},
		{"unknown ICMP", icmp4(200).build(t), false, false},
		{"echo, IPv6", icmp6(128).build(t), true, true},
		{"unreachable, IPv6", icmp6(1).build(t), false, false},
		{"too big, IPv6", icmp6(2).build(t), false, false},
		{"unknown error, IPv6", icmp6(100).build(t), false, false},
		{"redirect, IPv6", icmp6(137).build(t), false, false},
		{"to multicast", udp(false, "10.0.0.1", "224.0.0.9").build(t), false, false},
		{"to broadcast", udp(false, "10.0.0.1", "255.255.255.255").build(t), false, false},
		{"from class E", udp(false, "240.0.0.1", "10.0.0.1").build(t), false, false},
		{"to multicast, IPv6", udp(true, "2001:db8::1", "ff0e::9").build(t), false, true},
		{"later fragment", func() []byte {
			b := udp(false, "", "").build(t)
			binary.BigEndian.PutUint16(b[6:], fragDF|100)
			return refix(b)
		}(), false, false},
		{"first fragment", func() []byte {
			b := udp(false, "", "").build(t)
			b = b[:len(b)-8]
			binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
			binary.BigEndian.PutUint16(b[6:], fragDF|fragMore)
			return refix(b)
		}(), true, true},
		{"without DF", spec{l4: &layers.UDP{SrcPort: 7, DstPort: 8}, payload: pattern(1400)}.build(t), true, false},
	} {
		in := mustDecode(t, c.b)
		src := ours(in.Version == 6)
		if got := AppendTimeExceeded(nil, c.b, &in, src); (got != nil) != c.exceeded {
			t.Errorf("%s: time exceeded % x", c.name, got)
		}
		if got := AppendTooBig(nil, c.b, &in, src, 1300); (got != nil) != c.toBig {
			t.Errorf("%s: too big % x", c.name, got)
		}
	}
	b := udpPacket(t, false, 0)
	in := mustDecode(t, b)
	for _, src := range []netip.Addr{our6, {}} {
		if AppendTimeExceeded(nil, b, &in, src) != nil {
			t.Errorf("an answer from %v", src)
		}
	}
	if AppendUnreachable(nil, b, &in, our4, AdminProhibited+1) != nil {
		t.Error("an answer for no reason")
	}
	if AppendTimeExceeded(nil, b, &in, netip.AddrFrom16(our4.As16())) == nil {
		t.Error("no answer from a mapped source")
	}
	if got := AppendTimeExceeded([]byte("head"), b, &in, our4); string(got[:4]) != "head" || got[4] != 0x45 {
		t.Error("does not append")
	}
}

func TestReset(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		for _, c := range []struct {
			name     string
			tcp      layers.TCP
			payload  int
			seq, ack uint32
			acks     bool
		}{
			{"SYN", layers.TCP{Seq: 100, SYN: true}, 0, 0, 101, true},
			{"SYN with data", layers.TCP{Seq: 100, SYN: true}, 10, 0, 111, true},
			{"SYN and FIN", layers.TCP{Seq: ^uint32(0), SYN: true, FIN: true}, 1, 0, 2, true},
			{"ACK", layers.TCP{Seq: 100, Ack: 55, ACK: true}, 10, 55, 0, false},
			{"SYN ACK", layers.TCP{Seq: 100, Ack: 55, SYN: true, ACK: true}, 0, 55, 0, false},
		} {
			c.tcp.SrcPort, c.tcp.DstPort = 40000, 443
			orig := spec{v6: v6, l4: &c.tcp, payload: pattern(c.payload)}.build(t)
			in := mustDecode(t, orig)
			b := AppendReset([]byte("head"), append(orig, 1, 2), &in)[4:]
			got := verify(t, b)
			flags := uint8(FlagRST)
			if c.acks {
				flags |= FlagACK
			}
			h := b[got.L4:]
			if got.Key != in.Key.Reverse() || got.Flags != flags ||
				binary.BigEndian.Uint32(h[4:]) != c.seq || binary.BigEndian.Uint32(h[8:]) != c.ack || int(got.Payload) != len(b) {
				t.Errorf("%s: %+v % x", c.name, got, h)
			}
		}
		rst := spec{v6: v6, l4: &layers.TCP{SrcPort: 1, DstPort: 2, RST: true}}.build(t)
		for _, b := range [][]byte{rst, udpPacket(t, v6, 1)} {
			in := mustDecode(t, b)
			if AppendReset(nil, b, &in) != nil {
				t.Errorf("a reset against %+v", in)
			}
		}
	}
	multicast := spec{dst: "224.0.0.1", src: "10.0.0.1", l4: &layers.TCP{SrcPort: 1, DstPort: 2, SYN: true}}.build(t)
	fragment := tcpPacket(t, false, 28)
	fragment[6] = 0x20
	refix(fragment)
	for _, b := range [][]byte{multicast, fragment} {
		in := mustDecode(t, b)
		if AppendReset(nil, b, &in) != nil {
			t.Errorf("a reset against %+v", in)
		}
	}
}

func TestAnswersAllocate(t *testing.T) {
	b := tcpPacket(t, true, 1400)
	in := mustDecode(t, b)
	dst := make([]byte, 0, 1500)
	if n := testing.AllocsPerRun(100, func() {
		AppendTimeExceeded(dst, b, &in, our6)
		AppendTooBig(dst, b, &in, our6, 1300)
		AppendReset(dst, b, &in)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
