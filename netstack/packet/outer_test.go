package packet

import (
	"bytes"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

func TestOuter(t *testing.T) {
	src, dst := [4]byte{100, 64, 0, 1}, [4]byte{100, 64, 0, 2}
	for _, v6 := range []bool{false, true} {
		for _, size := range []int{0, 1, 1000, 65000} {
			inner := udpPacket(t, v6, size)
			in := mustDecode(t, inner)
			b := append(make([]byte, OuterLen), inner...)
			PutOuter(b, src, dst, in.Version, 0xb9, len(inner))
			out := verify(t, b)
			if out.TOS != 0xb9 || out.TTL != 64 || int(out.Length) != len(b) || out.Fragment != Whole {
				t.Errorf("%+v", out)
			}
			p := gopacket.NewPacket(b, layers.LayerTypeIPv4, gopacket.Default)
			if ip := p.Layer(layers.LayerTypeIPv4).(*layers.IPv4); p.ErrorLayer() != nil || ip.Flags != layers.IPv4DontFragment || ip.Id != 0 {
				t.Errorf("%v", p)
			}
			s, d, proto, got, ok := ParseOuter(append(b, 1, 2, 3))
			want := uint8(IPIP)
			if v6 {
				want = IPv6IP
			}
			if !ok || s != src || d != dst || proto != want || !bytes.Equal(got, inner) {
				t.Errorf("ParseOuter: %v %v %v %d %v", s, d, proto, len(got), ok)
			}
		}
	}
}

func TestParseOuterRefuses(t *testing.T) {
	good := func(change func(b []byte)) []byte {
		b := append(make([]byte, OuterLen), udpPacket(t, false, 10)...)
		PutOuter(b, [4]byte{1}, [4]byte{2}, 4, 0, len(b)-OuterLen)
		change(b)
		return refix(b)
	}
	for name, b := range map[string][]byte{
		"nothing":              nil,
		"a header only":        good(func(b []byte) {})[:20],
		"cut":                  good(func(b []byte) {})[:40],
		"options":              good(func(b []byte) { b[0] = 0x46 }),
		"version":              good(func(b []byte) { b[0] = 0x65 }),
		"length 20":            good(func(b []byte) { b[2], b[3] = 0, 20 }),
		"a fragment":           good(func(b []byte) { b[7] = 1 }),
		"more fragments":       good(func(b []byte) { b[6] = 0x20 }),
		"UDP":                  good(func(b []byte) { b[9] = UDP }),
		"IPv6 said, IPv4 sent": good(func(b []byte) { b[9] = IPv6IP }),
		"IPv4 said, IPv6 sent": good(func(b []byte) { b[20] = 0x60 }),
	} {
		if _, _, _, inner, ok := ParseOuter(b); ok || inner != nil {
			t.Errorf("%s: accepted", name)
		}
	}
	b := good(func([]byte) {})
	if _, _, _, _, ok := ParseOuter(b); !ok {
		t.Fatal("the unchanged one is refused")
	}
	b[10]++
	if _, _, _, _, ok := ParseOuter(b); ok {
		t.Error("checksum: accepted")
	}
}
