package packet

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/google/gopacket/layers"
	"pgregory.net/rapid"
)

func TestDecrementTTL(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		for ttl := range 256 {
			s := spec{v6: v6, ttl: uint8(max(ttl, 1)), l4: &layers.UDP{SrcPort: 1, DstPort: 2}, payload: pattern(ttl)}
			b := s.build(t)
			if ttl == 0 {
				if v6 {
					b[7] = 0
				} else {
					b[8] = 0
					refix(b)
				}
			}
			in := mustDecode(t, b)
			before := append([]byte{}, b...)
			alive := DecrementTTL(b, &in)
			switch {
			case alive != (ttl > 1):
				t.Fatalf("TTL %d: alive %v", ttl, alive)
			case !alive && !bytes.Equal(b, before):
				t.Fatalf("TTL %d: an expired packet was changed", ttl)
			case alive:
				s.ttl--
				if want := s.build(t); !bytes.Equal(b, want) || int(in.TTL) != ttl-1 {
					t.Fatalf("TTL %d\n got % x\nwant % x", ttl, b[:40], want[:40])
				}
			}
		}
	}
}

// Property (RFC 1624): the incremental checksum equals the recomputed one.
func TestTOS(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		s := spec{v6: rapid.Bool().Draw(r, "v6"), tos: rapid.Byte().Draw(r, "tos"), id: rapid.Uint16().Draw(r, "id"), l4: &layers.UDP{SrcPort: 1, DstPort: 2}}
		b := s.build(t)
		in := mustDecode(t, b)
		dscp := rapid.Uint8Range(0, 63).Draw(r, "dscp")
		SetDSCP(b, &in, dscp)
		want := s
		want.tos = dscp<<2 | s.tos&3
		if expect := want.build(t); !bytes.Equal(b, expect) || in.TOS != want.tos {
			r.Fatalf("SetDSCP\n got % x\nwant % x", b, expect)
		}
		marked := MarkECN(b, &in)
		if marked != (s.tos&3 != 0) {
			r.Fatalf("MarkECN %v of ECN %d", marked, s.tos&3)
		}
		if marked {
			want.tos |= 3
		}
		if expect := want.build(t); !bytes.Equal(b, expect) || in.TOS != want.tos {
			r.Fatalf("MarkECN\n got % x\nwant % x", b, expect)
		}
	})
}

// The table of RFC 6040, figure 4.
func TestMergeECN(t *testing.T) {
	const not, ect1, ect0, ce, drop = 0, 1, 2, 3, 99
	for inner, row := range map[uint8][4]int{ // by outer: Not-ECT, ECT(1), ECT(0), CE
		not:  {not, not, not, drop},
		ect0: {ect0, ect1, ect0, ce},
		ect1: {ect1, ect1, ect1, ce},
		ce:   {ce, ce, ce, ce},
	} {
		for outer, want := range row {
			for _, v6 := range []bool{false, true} {
				b := spec{v6: v6, tos: 0xb8 | inner, l4: &layers.UDP{SrcPort: 1, DstPort: 2}}.build(t)
				in := mustDecode(t, b)
				if ok := MergeECN(b, &in, 0x40|uint8(outer)); ok != (want != drop) {
					t.Errorf("inner %d outer %d: %v", inner, outer, ok)
				} else if got := verify(t, b).TOS; ok && (got != 0xb8|uint8(want) || in.TOS != got) {
					t.Errorf("inner %d outer %d: TOS %#x, want ECN %d", inner, outer, got, want)
				}
			}
		}
	}
}

func TestClampMSS(t *testing.T) {
	mss := func(v uint16) layers.TCPOption {
		return layers.TCPOption{OptionType: 2, OptionLength: 4, OptionData: []byte{byte(v >> 8), byte(v)}}
	}
	nop, other := layers.TCPOption{OptionType: 1}, layers.TCPOption{OptionType: 3, OptionLength: 3, OptionData: []byte{7}}
	rapid.Check(t, func(r *rapid.T) {
		v := rapid.Uint16().Draw(r, "mss")
		mtu := rapid.IntRange(61, 9000).Draw(r, "mtu")
		// Options before it put the value at odd and even offsets.
		options := append(rapid.SliceOfN(rapid.SampledFrom([]layers.TCPOption{nop, other}), 0, 6).Draw(r, "before"), mss(v))
		s := spec{
			v6:      rapid.Bool().Draw(r, "v6"),
			l4:      &layers.TCP{SrcPort: 1, DstPort: 2, SYN: true, ACK: rapid.Bool().Draw(r, "ack"), Options: options},
			payload: pattern(rapid.IntRange(0, 30).Draw(r, "payload")),
		}
		b := s.build(t)
		partial := rapid.Bool().Draw(r, "partial")
		buf := super(t, b, 0, partial)
		defer buf.Release()
		limit := mtu - 40
		if s.v6 {
			limit = mtu - 60
		}
		changed := buf.ClampMSS(mtu)
		if changed != (int(v) > limit) {
			r.Fatalf("MSS %d, MTU %d: changed %v", v, mtu, changed)
		}
		options[len(options)-1] = mss(uint16(min(int(v), limit)))
		if expect := s.build(t); !bytes.Equal(buf.Bytes, expect) {
			r.Fatalf("\n got % x\nwant % x", buf.Bytes, expect)
		}
	})
}

func TestClampMSSLeaves(t *testing.T) {
	syn := func(options ...byte) []byte {
		b := spec{l4: &layers.TCP{SrcPort: 1, DstPort: 2, SYN: true}}.build(t)
		b = append(b, options...)
		b[32] = byte(20+len(options)) / 4 << 4
		binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
		return refix(b)
	}
	ack := syn(2, 4, 255, 255)
	ack[33] = FlagACK
	for name, b := range map[string][]byte{
		"no options":                syn(),
		"no MSS option":             syn(1, 3, 3, 7),
		"MSS after the end of list": syn(0, 1, 1, 1, 2, 4, 255, 255),
		"MSS of a wrong length":     syn(2, 3, 255, 1),
		"option of length 0":        syn(3, 0, 1, 1, 2, 4, 255, 255),
		"option past the end":       syn(1, 1, 2, 4),
		"option without a length":   syn(1, 1, 1, 2),
		"not a SYN":                 ack,
		"UDP":                       udpPacket(t, false, 20),
	} {
		in := mustDecode(t, b)
		before := append([]byte{}, b...)
		if ClampMSS(b, &in, 100) || !bytes.Equal(b, before) {
			t.Errorf("%s: changed", name)
		}
	}
	b := syn(2, 4, 255, 255)
	in := mustDecode(t, b)
	if ClampMSS(b, &in, 40) || ClampMSS(b, &in, 0) || ClampMSS(b, &in, 1<<20) {
		t.Error("clamped to an MTU that makes no sense")
	}
	if !ClampMSS(b, &in, 1400) {
		t.Error("not clamped")
	}
}
