package packet

import (
	"bytes"
	"net/netip"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

// oracle is gopacket's idea of a packet.
type oracle struct {
	ip4     layers.IPv4
	ip6     layers.IPv6
	skip    layers.IPv6ExtensionSkipper
	tcp     layers.TCP
	udp     layers.UDP
	icmp4   layers.ICMPv4
	icmp6   layers.ICMPv6
	parser4 *gopacket.DecodingLayerParser
	parser6 *gopacket.DecodingLayerParser
	seen    []gopacket.LayerType
}

func newOracle() *oracle {
	o := new(oracle)
	l := []gopacket.DecodingLayer{&o.tcp, &o.udp, &o.icmp4, &o.icmp6}
	o.parser4 = gopacket.NewDecodingLayerParser(layers.LayerTypeIPv4, append(l, &o.ip4)...)
	o.parser6 = gopacket.NewDecodingLayerParser(layers.LayerTypeIPv6, append(l, &o.ip6, &o.skip)...)
	o.parser4.IgnoreUnsupported, o.parser6.IgnoreUnsupported = true, true
	return o
}

// decode reports whether gopacket accepts b.
func (o *oracle) decode(b []byte) bool {
	if len(b) == 0 {
		return false
	}
	p := o.parser4
	if b[0]>>4 == 6 {
		p = o.parser6
	}
	return p.DecodeLayers(b, &o.seen) == nil && !p.Truncated && len(o.seen) > 0
}

// compare fails t where in disagrees with what gopacket found in b.
func (o *oracle) compare(t *testing.T, b []byte, in *Info) {
	t.Helper()
	equal := func(what string, got, want any) {
		if got != want {
			t.Errorf("%s: %v, gopacket has %v", what, got, want)
		}
	}
	offset := func(contents []byte) int { return cap(b) - cap(contents) }
	ports := func(contents []byte, src, dst uint16) {
		equal("source port", in.Key.SrcPort, src)
		equal("destination port", in.Key.DstPort, dst)
		equal("transport header's offset", int(in.L4), offset(contents))
	}
	addr := func(ip []byte) netip.Addr { a, _ := netip.AddrFromSlice(ip); return a }
	for _, kind := range o.seen {
		switch kind {
		case layers.LayerTypeIPv4:
			equal("version", in.Version, o.ip4.Version)
			equal("TOS", in.TOS, o.ip4.TOS)
			equal("TTL", in.TTL, o.ip4.TTL)
			equal("length", in.Length, uint32(o.ip4.Length))
			equal("protocol", in.Key.Proto, uint8(o.ip4.Protocol))
			equal("source", in.Key.Src.Netip(), addr(o.ip4.SrcIP))
			equal("destination", in.Key.Dst.Netip(), addr(o.ip4.DstIP))
			equal("later fragment", in.Fragment == LaterFragment, o.ip4.FragOffset > 0)
			equal("whole", in.Fragment == Whole, o.ip4.FragOffset == 0 && o.ip4.Flags&layers.IPv4MoreFragments == 0)
			if in.Fragment != Whole {
				equal("fragment id", in.FragID, uint32(o.ip4.Id))
			}
		case layers.LayerTypeIPv6:
			equal("version", in.Version, o.ip6.Version)
			equal("traffic class", in.TOS, o.ip6.TrafficClass)
			equal("hop limit", in.TTL, o.ip6.HopLimit)
			equal("length", in.Length, uint32(o.ip6.Length)+40)
			equal("source", in.Key.Src, Addr(o.ip6.SrcIP))
			equal("destination", in.Key.Dst, Addr(o.ip6.DstIP))
		}
		if in.Fragment == LaterFragment {
			continue // gopacket's IPv6 skipper goes on into the payload
		}
		switch kind {
		case layers.LayerTypeTCP:
			ports(o.tcp.Contents, uint16(o.tcp.SrcPort), uint16(o.tcp.DstPort))
			equal("protocol", in.Key.Proto, uint8(TCP))
			equal("flags", in.Flags, b[int(in.L4)+13])
			equal("SYN, ACK", [2]bool{in.Flags&FlagSYN != 0, in.Flags&FlagACK != 0}, [2]bool{o.tcp.SYN, o.tcp.ACK})
			equal("payload", int(in.Payload-in.L4), int(o.tcp.DataOffset)*4)
		case layers.LayerTypeUDP:
			ports(o.udp.Contents, uint16(o.udp.SrcPort), uint16(o.udp.DstPort))
			equal("protocol", in.Key.Proto, uint8(UDP))
			equal("payload", int(in.Payload-in.L4), 8)
		case layers.LayerTypeICMPv4:
			if in.Version == 4 {
				equal("ICMP type", in.ICMPType, o.icmp4.TypeCode.Type())
				equal("ICMP code", in.ICMPCode, o.icmp4.TypeCode.Code())
				if in.ICMPType == 8 || in.ICMPType == 0 {
					ports(o.icmp4.Contents, o.icmp4.Id, o.icmp4.Id)
				}
			}
		case layers.LayerTypeICMPv6:
			if in.Version == 6 {
				equal("ICMPv6 type", in.ICMPType, o.icmp6.TypeCode.Type())
				equal("ICMPv6 code", in.ICMPCode, o.icmp6.TypeCode.Code())
			}
		}
	}
}

// seeds are one packet of each kind, and some that are wrong.
func seeds(t testing.TB) [][]byte {
	udp := []byte{0, 1, 0, 2, 0, 16, 0, 0, 9, 9, 9, 9, 9, 9, 9, 9}
	fragment := udpPacket(t, false, 16)
	fragment[6], fragment[7] = 0x20, 9
	mss := []layers.TCPOption{{OptionType: 1}, {OptionType: 2, OptionLength: 4, OptionData: []byte{5, 0xb4}}}
	echo := spec{l4: &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(8, 0), Id: 77}}
	list := [][]byte{
		{},
		tcpPacket(t, false, 20), tcpPacket(t, true, 20), udpPacket(t, false, 20), udpPacket(t, true, 20),
		tcpPacket(t, false, 20)[:39], refix(fragment), echo.build(t),
		spec{l4: &layers.TCP{SYN: true, SrcPort: 1, DstPort: 2, Options: mss}}.build(t),
		spec{v6: true, l4: &layers.TCP{SYN: true, SrcPort: 1, DstPort: 2, Options: mss}}.build(t),
		spec{v6: true, l4: &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(128, 0)}, payload: []byte{0, 7, 0, 0}}.build(t),
		spec{options: []layers.IPv4Option{{OptionType: 0x94, OptionLength: 4, OptionData: []byte{0, 0}}}, l4: &layers.UDP{SrcPort: 1, DstPort: 2}}.build(t),
		spec{proto: SCTP, payload: pattern(16)}.build(t),
		chain(t, UDP, udp, []byte{hopByHop, 0, 0, 0, 0, 0, 0, 0, 0}, []byte{destOptions, 0, 0, 0, 0, 0, 0, 0, 0}),
		chain(t, UDP, udp, []byte{fragmentHdr, 0, 0, 0, 1, 0, 0, 0, 1}),
		chain(t, UDP, udp, []byte{fragmentHdr, 0, 0, 0, 17, 0, 0, 0, 1}),
		chain(t, TCP, pattern(20), append([]byte{authHdr, 0, 4}, make([]byte, 22)...)),
	}
	for _, b := range list {
		var in Info
		if Decode(b, &in) == OK {
			if e := AppendUnreachable(nil, b, &in, ours(in.Version == 6), Port); e != nil {
				list = append(list, e)
			}
		}
	}
	return list
}

// FuzzDecode: where both accept a packet, gopacket agrees about it; what is
// accepted is as wide as promised; and neither is there a panic.
func FuzzDecode(f *testing.F) {
	for _, b := range seeds(f) {
		f.Add(b)
	}
	o := newOracle()
	f.Fuzz(func(t *testing.T, b []byte) {
		b = bytes.Clone(b)[:len(b):len(b)]
		// A fuzzer does not guess checksums.
		if len(b) >= 20 && b[0]>>4 == 4 && b[0]&0xf >= 5 && int(b[0]&0xf)*4 <= len(b) {
			refix(b)
		}
		in, again := dirty(), Info{}
		before := bytes.Clone(b)
		fault := Decode(b, &in)
		if !bytes.Equal(b, before) {
			t.Fatal("Decode wrote into the packet")
		}
		if f := Decode(b, &again); f != fault {
			t.Fatalf("%v, then %v: Decode depends on what in held", fault, f)
		}
		if fault >= FaultCount {
			t.Fatalf("fault %d", fault)
		}
		if fault != OK && fault < BadSource {
			return
		}
		if in.Fragment == Whole {
			in.FragID, again.FragID = 0, 0
		}
		if in != again {
			t.Fatalf("%+v, then %+v: Decode depends on what in held", in, again)
		}
		if in.L4 > in.Payload || uint32(in.Payload) > in.Length || int(in.Length) > len(b) {
			t.Fatalf("bounds: %+v of %d bytes", in, len(b))
		}
		if o.decode(b) {
			o.compare(t, b, &in)
		}
	})
}

// FuzzPacket calls everything that takes a decoded packet.
func FuzzPacket(f *testing.F) {
	for i, b := range seeds(f) {
		f.Add(b, uint16(i), uint16(1400), uint16(20), uint16(16), i%2 == 0)
	}
	f.Fuzz(func(t *testing.T, b []byte, size, mtu, start, offset uint16, partial bool) {
		if len(b) > 65535 {
			return
		}
		if len(b) >= 20 && b[0]>>4 == 4 && b[0]&0xf >= 5 && int(b[0]&0xf)*4 <= len(b) {
			b = refix(bytes.Clone(b))
		}
		ParseOuter(b)
		buf := Get(len(b))
		defer buf.Release()
		copy(buf.Bytes, b)
		buf.GSO = GSO{Size: size, NeedsCsum: partial, CsumStart: start, CsumOffset: offset, Proto: uint8(start)}
		var s Segmenter
		dst := make([]byte, 65536)
		total, n := 0, 0
		for s.Reset(buf); s.Left() > 0; n++ {
			k, ok := s.Next(dst)
			if !ok {
				t.Fatal("Left lies")
			}
			var in Info
			if fault := Decode(dst[:k], &in); fault != OK {
				t.Fatalf("segment: %v", fault)
			}
			total += k - int(in.Payload)
		}
		buf.FinishChecksum()

		var in Info
		if Decode(b, &in) != OK {
			return
		}
		if want := int(in.Length) - int(in.Payload); n > 0 && total != want {
			t.Fatalf("%d segments carry %d bytes of %d", n, total, want)
		}
		DecodeQuoted(b, &in)
		src := ours(in.Version == 6)
		for _, a := range [][]byte{
			AppendTimeExceeded(nil, b, &in, src), AppendTooBig(nil, b, &in, src, int(mtu)),
			AppendUnreachable(nil, b, &in, src, Port), AppendReset(nil, b, &in),
		} {
			if a != nil {
				verify(t, a)
			}
		}
		c := bytes.Clone(b)
		ClampMSS(c, &in, int(mtu))
		MarkECN(c, &in)
		SetDSCP(c, &in, uint8(size)&63)
		DecrementTTL(c, &in)
		after := mustDecode(t, c)
		if in.Fragment == Whole {
			in.FragID, after.FragID = 0, 0
		}
		if after != in {
			t.Fatalf("Info was not kept up: %+v, decoded %+v", in, after)
		}
		total = 0
		err := Fragments(b, &in, int(mtu), func(f []byte) {
			total += len(f) - int(f[0]&0xf)*4
		})
		if want := int(in.Length) - int(b[0]&0xf)*4; err == nil && in.Version == 4 && total != want {
			t.Fatalf("fragments carry %d bytes of %d", total, want)
		}
	})
}
