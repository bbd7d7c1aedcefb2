package packet

import (
	"net/netip"
	"testing"

	"github.com/google/gopacket/layers"
)

// icmpError wraps a quotation into an error message as a router would send it.
func icmpError(t *testing.T, v6 bool, quote []byte) ([]byte, Info) {
	t.Helper()
	s := spec{src: "10.9.9.9", dst: "10.0.0.1", l4: &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(3, 4)}, payload: quote}
	if v6 {
		s = spec{v6: true, src: "2001:db8:9::9", dst: "2001:db8::1", l4: &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(2, 0)}, payload: append(make([]byte, 4), quote...)}
	}
	b := s.build(t)
	return b, mustDecode(t, b)
}

func TestDecodeQuoted(t *testing.T) {
	echo4 := spec{l4: &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(8, 0), Id: 77}}.build(t)
	echo6 := spec{v6: true, l4: &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(128, 0)}, payload: []byte{0, 77, 0, 0}}.build(t)
	error4 := spec{l4: &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(11, 0)}}.build(t)
	other := spec{src: "10.0.0.77", dst: "10.0.1.2", l4: &layers.UDP{SrcPort: 1, DstPort: 2}}.build(t)
	later := udpPacket(t, false, 80)
	later[7] = 9
	options := spec{options: []layers.IPv4Option{{OptionType: 0x94, OptionLength: 4, OptionData: []byte{0, 0}}}, l4: &layers.UDP{SrcPort: 5000, DstPort: 7777}}.build(t)
	udp := []byte{0, 1, 0, 2, 0, 16, 0, 0, 9, 9, 9, 9, 9, 9, 9, 9}
	hop := chain(t, UDP, udp, []byte{hopByHop, 0, 0, 0, 0, 0, 0, 0, 0})
	frag := chain(t, UDP, udp, []byte{fragmentHdr, 0, 0, 0, 1, 0, 0, 0, 1})
	ap := netip.MustParseAddrPort
	for _, c := range []struct {
		name  string
		v6    bool
		quote []byte
		want  Key // zero: not told
	}{
		{"TCP, 8 bytes", false, tcpPacket(t, false, 80)[:28], NewKey(TCP, ap("10.0.0.1:40000"), ap("10.0.1.2:443"))},
		{"TCP, ports only", false, tcpPacket(t, false, 80)[:24], NewKey(TCP, ap("10.0.0.1:40000"), ap("10.0.1.2:443"))},
		{"TCP, cut in the ports", false, tcpPacket(t, false, 80)[:23], Key{}},
		{"IPv4 header cut", false, tcpPacket(t, false, 80)[:19], Key{}},
		{"nothing", false, nil, Key{}},
		{"options", false, options, NewKey(UDP, ap("10.0.0.1:5000"), ap("10.0.1.2:7777"))},
		{"options cut", false, options[:22], Key{}},
		{"echo", false, echo4, NewKey(ICMP, ap("10.0.0.1:77"), ap("10.0.1.2:77"))},
		{"echo, cut", false, echo4[:25], Key{}},
		{"an error about an error", false, error4, Key{}},
		{"somebody else's packet", false, other, Key{}},
		{"later fragment", false, later, Key{}},
		{"IPv6 in ICMPv4", false, tcpPacket(t, true, 80), Key{}},
		{"another protocol", false, spec{proto: 47, payload: pattern(4)}.build(t), NewKey(47, ap("10.0.0.1:0"), ap("10.0.1.2:0"))},
		{"TCP over IPv6", true, tcpPacket(t, true, 80)[:48], NewKey(TCP, ap("[2001:db8::1]:40000"), ap("[2001:db8:1::2]:443"))},
		{"TCP over IPv6, cut", true, tcpPacket(t, true, 80)[:43], Key{}},
		{"echo over IPv6", true, echo6, NewKey(ICMPv6, ap("[2001:db8::1]:77"), ap("[2001:db8:1::2]:77"))},
		{"extension header", true, hop[:53], NewKey(UDP, ap("[2001:db8::1]:1"), ap("[2001:db8:1::2]:2"))},
		{"extension header cut", true, hop[:45], Key{}},
		{"first fragment cut", true, frag[:57], NewKey(UDP, ap("[2001:db8::1]:1"), ap("[2001:db8:1::2]:2"))},
		{"IPv6 header cut", true, hop[:39], Key{}},
		{"IPv4 in ICMPv6", true, tcpPacket(t, false, 80), Key{}},
	} {
		b, in := icmpError(t, c.v6, c.quote)
		k, ok := DecodeQuoted(b, &in)
		if k != c.want || ok != (c.want != Key{}) {
			t.Errorf("%s: %v %+v", c.name, ok, k)
		}
	}
	for _, b := range [][]byte{echo4, echo6, udpPacket(t, false, 60), tcpPacket(t, true, 60)} {
		in := mustDecode(t, b)
		if k, ok := DecodeQuoted(b, &in); ok {
			t.Errorf("no error, and yet %+v", k)
		}
	}
}
