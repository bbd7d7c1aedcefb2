package packet

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"pgregory.net/rapid"
)

// Property: the fragments put together are what was fragmented, twice if need be.
func TestFragments(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		s := spec{id: 99, l4: &layers.UDP{SrcPort: 1, DstPort: 2}, payload: pattern(rapid.IntRange(1, 5000).Draw(r, "length"))}
		mtu := rapid.IntRange(576, 1500).Draw(r, "mtu")
		mtu2 := rapid.IntRange(128, mtu).Draw(r, "second mtu")
		if rapid.Bool().Draw(r, "options") {
			s.options = []layers.IPv4Option{
				{OptionType: 7, OptionLength: 3, OptionData: []byte{4}}, // first fragment only
				{OptionType: 1}, // padding
				{OptionType: 0x94, OptionLength: 4, OptionData: []byte{0, 0}},                          // copied
				{OptionType: 0x82, OptionLength: 11, OptionData: []byte("security!")}, {OptionType: 1}, // copied
			}
		}
		b := s.build(t)
		in := mustDecode(t, b)
		var all [][]byte
		keep := func(mtu int) func([]byte) {
			return func(f []byte) {
				if len(f) > mtu {
					r.Fatalf("%d bytes for an MTU of %d", len(f), mtu)
				}
				var in Info
				if fault := Decode(f, &in); fault != OK {
					r.Fatalf("fragment: %v: % x", fault, f)
				}
				all = append(all, append([]byte{}, f...))
			}
		}
		if err := Fragments(b, &in, mtu, keep(mtu)); err != nil {
			r.Fatal(err)
		}
		first := all
		all = nil
		for _, f := range first {
			in := mustDecode(t, f)
			if err := Fragments(f, &in, mtu2, keep(mtu2)); err != nil {
				r.Fatal(err)
			}
		}
		if len(b) <= mtu2 {
			if len(all) != 1 || !bytes.Equal(all[0], b) {
				r.Fatal("a packet that fits was changed")
			}
			return
		}
		var whole []byte
		for i, f := range all {
			ip := gopacket.NewPacket(f, layers.LayerTypeIPv4, gopacket.NoCopy).Layer(layers.LayerTypeIPv4).(*layers.IPv4)
			if ip.Id != 99 || int(ip.FragOffset)*8 != len(whole) || (ip.Flags&layers.IPv4MoreFragments != 0) != (i < len(all)-1) {
				r.Fatalf("fragment %d of %d after %d bytes: %+v", i, len(all), len(whole), ip)
			}
			if s.options != nil {
				checkOptions(r, ip.Options, i == 0)
			}
			whole = append(whole, ip.LayerPayload()...)
		}
		if !bytes.Equal(whole, b[in.L4:]) {
			r.Fatalf("reassembled %d bytes of %d", len(whole), len(b)-int(in.L4))
		}
	})
}

func checkOptions(r *rapid.T, options []layers.IPv4Option, first bool) {
	seen := map[uint8]bool{}
	for _, o := range options {
		seen[o.OptionType] = true
	}
	if seen[7] != first || !seen[0x94] || !seen[0x82] {
		r.Fatalf("options %v, first %v", options, first)
	}
}

func TestFragmentsRefused(t *testing.T) {
	df := spec{df: true, l4: &layers.UDP{SrcPort: 1, DstPort: 2}, payload: pattern(1000)}.build(t)
	for _, c := range []struct {
		name string
		b    []byte
		mtu  int
		want error
	}{
		{"DF", df, 600, ErrDontFragment},
		{"IPv6", udpPacket(t, true, 1400), 1300, ErrDontFragment},
		{"MTU", udpPacket(t, false, 1400), 67, ErrMTU},
		{"MTU 0", udpPacket(t, false, 1400), 0, ErrMTU},
	} {
		in := mustDecode(t, c.b)
		err := Fragments(c.b, &in, c.mtu, func([]byte) { t.Errorf("%s: yielded", c.name) })
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	b := udpPacket(t, false, 1400)
	in := mustDecode(t, b)
	n := 0
	if got := testing.AllocsPerRun(100, func() { _ = Fragments(b, &in, 600, func([]byte) { n++ }) }); got > 0 {
		t.Errorf("%v allocations", got)
	}
	if got := binary.BigEndian.Uint16(b[6:]); got != 0 {
		t.Errorf("the original was changed: %#x", got)
	}
}
