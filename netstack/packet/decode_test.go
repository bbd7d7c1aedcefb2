package packet

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/google/gopacket/layers"
)

func TestDecode(t *testing.T) {
	ap := netip.MustParseAddrPort
	for _, c := range []struct {
		name string
		spec spec
		want Info
	}{
		{"TCP over IPv4", spec{tos: 0xb9, ttl: 9, l4: &layers.TCP{SrcPort: 1, DstPort: 2, SYN: true, ECE: true, CWR: true}, payload: pattern(3)}, Info{
			Key: NewKey(TCP, ap("10.0.0.1:1"), ap("10.0.1.2:2")), Version: 4, TOS: 0xb9, TTL: 9,
			Flags: FlagSYN | FlagECE | FlagCWR, L4: 20, Payload: 40, Length: 43,
		}},
		{"TCP over IPv6", spec{v6: true, tos: 0xb9, ttl: 9, l4: &layers.TCP{SrcPort: 1, DstPort: 2, FIN: true, PSH: true, URG: true, RST: true}}, Info{
			Key: NewKey(TCP, ap("[2001:db8::1]:1"), ap("[2001:db8:1::2]:2")), Version: 6, TOS: 0xb9, TTL: 9,
			Flags: FlagFIN | FlagPSH | FlagURG | FlagRST, L4: 40, Payload: 60, Length: 60,
		}},
		{"UDP over IPv4 with options", spec{options: []layers.IPv4Option{{OptionType: 1}, {OptionType: 0x94, OptionLength: 4, OptionData: []byte{0, 0}}}, l4: &layers.UDP{SrcPort: 1, DstPort: 2}, payload: pattern(5)}, Info{
			Key: NewKey(UDP, ap("10.0.0.1:1"), ap("10.0.1.2:2")), Version: 4, TTL: 64, L4: 28, Payload: 36, Length: 41,
		}},
		{"UDP over IPv6", spec{v6: true, l4: &layers.UDP{SrcPort: 1, DstPort: 2}, payload: pattern(5)}, Info{
			Key: NewKey(UDP, ap("[2001:db8::1]:1"), ap("[2001:db8:1::2]:2")), Version: 6, TTL: 64, L4: 40, Payload: 48, Length: 53,
		}},
		{"echo over IPv4", spec{l4: &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(8, 0), Id: 77, Seq: 1}}, Info{
			Key: NewKey(ICMP, ap("10.0.0.1:77"), ap("10.0.1.2:77")), Version: 4, TTL: 64, ICMPType: 8, L4: 20, Payload: 28, Length: 28,
		}},
		{"echo reply over IPv6", spec{v6: true, l4: &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(129, 0)}, payload: []byte{0, 77, 0, 1}}, Info{
			Key: NewKey(ICMPv6, ap("[2001:db8::1]:77"), ap("[2001:db8:1::2]:77")), Version: 6, TTL: 64, ICMPType: 129, L4: 40, Payload: 48, Length: 48,
		}},
		{"ICMP error", spec{l4: &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(3, 13), Id: 77}}, Info{
			Key: NewKey(ICMP, ap("10.0.0.1:0"), ap("10.0.1.2:0")), Version: 4, TTL: 64, ICMPType: 3, ICMPCode: 13, L4: 20, Payload: 28, Length: 28,
		}},
		{"SCTP", spec{proto: SCTP, payload: append([]byte{0, 1, 0, 2}, pattern(20)...)}, Info{
			Key: NewKey(SCTP, ap("10.0.0.1:1"), ap("10.0.1.2:2")), Version: 4, TTL: 64, L4: 20, Payload: 32, Length: 44,
		}},
		{"another protocol", spec{proto: 47, payload: pattern(2)}, Info{
			Key: NewKey(47, ap("10.0.0.1:0"), ap("10.0.1.2:0")), Version: 4, TTL: 64, L4: 20, Payload: 20, Length: 22,
		}},
		{"ICMPv6 inside IPv4 is not looked into", spec{proto: ICMPv6, payload: pattern(2)}, Info{
			Key: NewKey(ICMPv6, ap("10.0.0.1:0"), ap("10.0.1.2:0")), Version: 4, TTL: 64, L4: 20, Payload: 20, Length: 22,
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := c.spec.build(t)
			for _, padding := range []int{0, 6} {
				in := dirty()
				if f := Decode(append(b[:len(b):len(b)], make([]byte, padding)...), &in); f != OK {
					t.Fatal(f)
				}
				in.FragID = 0
				if in != c.want {
					t.Errorf("padding %d\n got %+v\nwant %+v", padding, in, c.want)
				}
			}
		})
	}
}

// dirty is an Info that was used before.
func dirty() Info {
	in := Info{Version: 9, TOS: 9, TTL: 9, Flags: 9, L4: 9, Payload: 9, Length: 9, Fragment: 9, FragID: 9, ICMPType: 9, ICMPCode: 9}
	in.Key = Key{SrcPort: 9, DstPort: 9, Proto: 9}
	for i := range in.Key.Src {
		in.Key.Src[i], in.Key.Dst[i] = 9, 9
	}
	return in
}

func TestDecodeFaults(t *testing.T) {
	tcp4 := func(change func(b []byte) []byte) []byte { return refix(change(tcpPacket(t, false, 20))) }
	from4 := func(src, dst string) []byte {
		return spec{src: src, dst: dst, l4: &layers.UDP{SrcPort: 5, DstPort: 5}}.build(t)
	}
	from6 := func(src, dst string) []byte {
		return spec{v6: true, src: src, dst: dst, l4: &layers.UDP{SrcPort: 5, DstPort: 5}}.build(t)
	}
	options := func(o ...byte) []byte {
		b := tcpPacket(t, false, 0)
		h := append(append(append([]byte{}, b[:20]...), o...), b[20:]...)
		h[0] = 0x40 | byte(20+len(o))/4
		binary.BigEndian.PutUint16(h[2:], uint16(len(h)))
		return refix(h)
	}
	fragment4 := func(word uint16, proto uint8, payload int) []byte {
		p := make([]byte, payload)
		copy(p, []byte{0, 1, 0, 2, 4}) // a UDP length of 1024
		b := spec{proto: layers.IPProtocol(proto), payload: p}.build(t)
		binary.BigEndian.PutUint16(b[6:], word)
		return refix(b)
	}
	for _, c := range []struct {
		name string
		b    []byte
		want Fault
	}{
		{"nothing", nil, Truncated},
		{"half a header", tcpPacket(t, false, 0)[:19], Truncated},
		{"half an IPv6 header", tcpPacket(t, true, 0)[:39], Truncated},
		{"version 5", tcp4(func(b []byte) []byte { b[0] = 0x55; return b }), BadVersion},
		{"version 0", make([]byte, 60), BadVersion},
		{"header of 16 bytes", tcp4(func(b []byte) []byte { b[0] = 0x44; return b }), BadHeader},
		{"header of 60 bytes in 50", tcp4(func(b []byte) []byte { b[0], b[3] = 0x4f, 50; return b }), BadLength},
		{"total length 10", tcp4(func(b []byte) []byte { b[3] = 10; return b }), BadLength},
		{"cut", tcpPacket(t, false, 20)[:59], Truncated},
		{"cut IPv6", tcpPacket(t, true, 20)[:79], Truncated},
		{"wrong checksum", func() []byte { b := tcpPacket(t, false, 20); b[8]++; return b }(), BadChecksum},
		{"wrong checksum with options", func() []byte { b := options(1, 1, 1, 1); b[8]++; return b }(), BadChecksum},
		{"options that do nothing", options(1, 1, 1, 0), OK},
		{"record route", options(7, 4, 4, 0), OK},
		{"loose source route", options(0x83, 7, 4, 1, 2, 3, 4, 0), SourceRoute},
		{"strict source route after others", options(1, 0x94, 4, 0, 0, 0x89, 3, 4), SourceRoute},
		{"source route after the end of list", options(0, 0x83, 3, 4), OK},
		{"option of length 0", options(7, 0, 0, 0), BadHeader},
		{"option longer than the header", options(1, 1, 7, 4), BadHeader},
		{"option without a length", options(1, 1, 1, 7), BadHeader},
		{"TCP of 19 bytes", func() []byte { return spec{proto: TCP, payload: make([]byte, 19)}.build(t) }(), Truncated},
		{"TCP offset 4", tcp4(func(b []byte) []byte { b[32] = 0x40; return b }), BadTransport},
		{"TCP offset past the end", tcp4(func(b []byte) []byte { b[32] = 0xf0; return b }), BadTransport},
		{"UDP of 7 bytes", spec{proto: UDP, payload: make([]byte, 7)}.build(t), Truncated},
		{"UDP length 7", spec{proto: UDP, payload: []byte{0, 1, 0, 2, 0, 7, 0, 0}}.build(t), BadTransport},
		{"UDP length past the end", spec{proto: UDP, payload: []byte{0, 1, 0, 2, 0, 9, 0, 0}}.build(t), BadTransport},
		{"UDP with options", spec{proto: UDP, payload: []byte{0, 1, 0, 2, 0, 8, 0, 0, 1, 1}}.build(t), OK},
		{"ICMP of 7 bytes", spec{proto: ICMP, payload: make([]byte, 7)}.build(t), Truncated},
		{"SCTP of 11 bytes", spec{proto: SCTP, payload: make([]byte, 11)}.build(t), Truncated},

		{"first fragment", fragment4(fragMore, UDP, 16), OK},
		{"first fragment without a whole UDP header", fragment4(fragMore, TCP, 16), TinyFragment},
		{"TCP header split by its offset", func() []byte {
			b := fragment4(fragMore, TCP, 24)
			b[32] = 0x80
			return b
		}(), TinyFragment},
		{"TCP fragment at offset 1", fragment4(1, TCP, 16), TinyFragment},
		{"UDP fragment at offset 1", fragment4(1, UDP, 16), OK},
		{"empty fragment", fragment4(2, UDP, 0), BadFragment},
		{"fragment of 9 bytes with more to come", fragment4(fragMore|2, UDP, 9), BadFragment},
		{"fragment past the end of a datagram", fragment4(8190, UDP, 16), BadFragment},

		{"from nowhere", from4("0.0.0.0", "255.255.255.255"), BadSource},
		{"from loopback", from4("127.0.0.1", "10.0.0.1"), BadSource},
		{"from multicast", from4("224.0.0.5", "10.0.0.1"), BadSource},
		{"from multicast, the last", from4("239.255.255.255", "10.0.0.1"), BadSource},
		{"from broadcast", from4("255.255.255.255", "10.0.0.1"), BadSource},
		{"from class E", from4("240.0.0.1", "10.0.0.1"), OK},
		{"from class C, the last", from4("223.255.255.255", "10.0.0.1"), OK},
		{"to multicast", from4("10.0.0.1", "224.0.0.251"), OK},
		{"to broadcast", from4("10.0.0.1", "255.255.255.255"), OK},
		{"to loopback", from4("10.0.0.1", "127.0.0.1"), BadDestination},
		{"to nowhere", from4("10.0.0.1", "0.0.0.0"), BadDestination},
		{"to itself", from4("10.0.0.1", "10.0.0.1"), Land},
		{"from :: (duplicate address detection)", from6("::", "ff02::1:ff00:1"), BadSource},
		{"from ::1", from6("::1", "2001:db8::1"), BadSource},
		{"from multicast, IPv6", from6("ff02::1", "2001:db8::1"), BadSource},
		{"to ::1", from6("2001:db8::1", "::1"), BadDestination},
		{"to ::", from6("2001:db8::1", "::"), BadDestination},
		{"to itself, IPv6", from6("2001:db8::1", "2001:db8::1"), Land},
		{"from an IPv4-mapped address", func() []byte {
			b := from6("2001:db8::1", "2001:db8::2")
			m := netip.MustParseAddr("::ffff:10.0.0.1").As16()
			copy(b[8:], m[:])
			return b
		}(), BadSource},
		{"to an IPv4-mapped address", func() []byte {
			b := from6("2001:db8::1", "2001:db8::2")
			m := netip.MustParseAddr("::ffff:10.0.0.1").As16()
			copy(b[24:], m[:])
			return b
		}(), BadDestination},
		{"to an IPv4-compatible address", from6("2001:db8::1", "::10.0.0.1"), OK},
	} {
		t.Run(c.name, func(t *testing.T) {
			in := dirty()
			if got := Decode(c.b, &in); got != c.want {
				t.Errorf("got %v, want %v", got, c.want)
			}
			if c.want >= BadSource && (in.Length != uint32(len(c.b)) || in.Key.Proto != UDP || in.Key.DstPort != 5) {
				t.Errorf("an address fault leaves the Info incomplete: %+v", in)
			}
		})
	}
}

// chain builds an IPv6 packet of extension headers: type, then content.
func chain(t testing.TB, last uint8, l4 []byte, headers ...[]byte) []byte {
	t.Helper()
	b := spec{v6: true, proto: 59}.build(t)
	at := 6
	for _, h := range headers {
		b[at] = h[0]
		at = len(b)
		b = append(b, h[1:]...)
	}
	b[at] = last
	b = append(b, l4...)
	binary.BigEndian.PutUint16(b[4:], uint16(len(b)-40))
	return b
}

func TestDecodeExtensions(t *testing.T) {
	udp := []byte{0, 1, 0, 2, 0, 16, 0, 0, 9, 9, 9, 9, 9, 9, 9, 9}
	ext := func(kind, units uint8) []byte {
		h := make([]byte, 1+8*(int(units)+1))
		h[0], h[2] = kind, units
		return h
	}
	frag := func(word uint16) []byte {
		h := ext(fragmentHdr, 0)
		binary.BigEndian.PutUint16(h[3:], word)
		binary.BigEndian.PutUint32(h[5:], 0xabcdef01)
		return h
	}
	segmentsLeft := ext(routing, 0)
	segmentsLeft[4] = 1
	many := func(n int) (l [][]byte) {
		for range n {
			l = append(l, ext(destOptions, 0))
		}
		return l
	}
	for _, c := range []struct {
		name string
		b    []byte
		want Fault
		l4   int
		frag Fragment
	}{
		{"none", chain(t, UDP, udp), OK, 40, Whole},
		{"hop by hop", chain(t, UDP, udp, ext(hopByHop, 0)), OK, 48, Whole},
		{"long options", chain(t, UDP, udp, ext(hopByHop, 3), ext(destOptions, 1)), OK, 88, Whole},
		{"hop by hop in the middle", chain(t, UDP, udp, ext(destOptions, 0), ext(hopByHop, 0)), BadExtension, 0, 0},
		{"routing, arrived", chain(t, UDP, udp, ext(routing, 2)), OK, 64, Whole},
		{"routing, on the way", chain(t, UDP, udp, segmentsLeft), SourceRoute, 0, 0},
		{"authentication, 24 bytes", chain(t, UDP, udp, append([]byte{authHdr, 0, 4}, make([]byte, 22)...)), OK, 64, Whole},
		{"8 headers", chain(t, UDP, udp, many(8)...), OK, 104, Whole},
		{"9 headers", chain(t, UDP, udp, many(9)...), LongChain, 0, 0},
		{"chain runs out", chain(t, destOptions, nil, ext(hopByHop, 0)), Truncated, 0, 0},
		{"last header too long", chain(t, UDP, udp, append(ext(destOptions, 0)[:1], 0, 5, 0, 0, 0, 0, 0, 0)), Truncated, 0, 0},
		{"no next header", chain(t, 59, nil), OK, 40, Whole},
		{"jumbogram", chain(t, hopByHop, nil), Truncated, 0, 0},
		{"atomic fragment", chain(t, UDP, udp, frag(0)), OK, 48, Whole},
		{"first fragment", chain(t, UDP, udp, frag(1)), OK, 48, FirstFragment},
		{"first fragment, options behind", chain(t, UDP, udp, frag(1), ext(destOptions, 0)), OK, 56, FirstFragment},
		{"first fragment, chain runs out", chain(t, destOptions, nil, frag(1), ext(destOptions, 0)), TinyFragment, 0, 0},
		{"first fragment without the header", chain(t, TCP, udp, frag(1)), TinyFragment, 0, 0},
		{"later fragment", chain(t, UDP, udp, frag(16)), OK, 48, LaterFragment},
		{"TCP fragment at offset 1", chain(t, TCP, udp, frag(8)), TinyFragment, 0, 0},
		{"empty fragment", chain(t, UDP, nil, frag(16)), BadFragment, 0, 0},
		{"fragment past the end of a datagram", chain(t, UDP, udp, frag(0xfff8)), BadFragment, 0, 0},
		{"fragment of a fragment", chain(t, UDP, udp, frag(1), frag(1)), BadFragment, 0, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			in := dirty()
			if got := Decode(c.b, &in); got != c.want {
				t.Fatalf("got %v, want %v", got, c.want)
			}
			if c.want != OK {
				return
			}
			if int(in.L4) != c.l4 || in.Fragment != c.frag {
				t.Errorf("L4 at %d, %v; want %d, %v", in.L4, in.Fragment, c.l4, c.frag)
			}
			if in.Fragment != Whole && in.FragID != 0xabcdef01 {
				t.Errorf("FragID %#x", in.FragID)
			}
			ports := in.Key.SrcPort == 1 && in.Key.DstPort == 2
			if want := in.Key.Proto == UDP && c.frag != LaterFragment; ports != want {
				t.Errorf("ports: %+v", in.Key)
			}
		})
	}
}

// TestDecodeFast compares the straight line of Decode to the whole decoder.
func TestDecodeFast(t *testing.T) {
	for _, b := range [][]byte{tcpPacket(t, false, 40), udpPacket(t, false, 40)} {
		for i := range b[:40] {
			for bit := range 8 {
				c := append([]byte{}, b...)
				c[i] ^= 1 << bit
				if i < 20 {
					refix(c)
				}
				if c[0]>>4 != 4 || c[0]&0xf < 5 {
					continue
				}
				fast, slow := dirty(), dirty()
				f, g := Decode(c, &fast), decode4(c, &slow)
				fast.FragID, slow.FragID = 0, 0
				if f != g || f == OK && fast != slow {
					t.Fatalf("byte %d bit %d: %v %+v; decode4: %v %+v", i, bit, f, fast, g, slow)
				}
			}
		}
	}
}

func TestDecodeAllocates(t *testing.T) {
	var in Info
	for _, b := range [][]byte{tcpPacket(t, false, 9), udpPacket(t, true, 9), chain(t, 59, nil, make([]byte, 9))} {
		if n := testing.AllocsPerRun(100, func() { Decode(b, &in) }); n != 0 {
			t.Errorf("%v allocations", n)
		}
	}
}

func TestFaultNames(t *testing.T) {
	seen := map[string]bool{}
	for f := range FaultCount {
		if s := f.String(); s == "" || s == "unknown" || seen[s] {
			t.Errorf("fault %d is called %q", f, s)
		} else {
			seen[s] = true
		}
	}
	if FaultCount.String() != "unknown" {
		t.Error(FaultCount.String())
	}
}
