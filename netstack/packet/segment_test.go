package packet

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"pgregory.net/rapid"
)

// super makes a superpacket of a packet; partial says whether the transport
// checksum holds the pseudo-header's sum only, as a kernel leaves it.
func super(t testing.TB, b []byte, size int, partial bool) *Buffer {
	t.Helper()
	in := mustDecode(t, b)
	buf := Get(len(b))
	copy(buf.Bytes, b)
	buf.GSO = GSO{Size: uint16(size), HdrLen: in.Payload, Proto: in.Key.Proto}
	if partial {
		leavePartial(buf, &in)
	}
	return buf
}

func leavePartial(buf *Buffer, in *Info) {
	buf.GSO.NeedsCsum, buf.GSO.CsumStart, buf.GSO.CsumOffset = true, in.L4, tcpCsum
	if in.Key.Proto == UDP {
		buf.GSO.CsumOffset = udpCsum
	}
	n := in.Length - uint32(in.L4)
	addrs := buf.Bytes[12:20]
	if in.Version == 6 {
		addrs = buf.Bytes[8:40]
	}
	binary.BigEndian.PutUint16(buf.Bytes[in.L4+buf.GSO.CsumOffset:], naive(addrs, n+uint32(in.Key.Proto)))
}

func cut(t testing.TB, buf *Buffer) (out [][]byte) {
	t.Helper()
	var s Segmenter
	s.Reset(buf)
	if s.Left() != buf.Segments() {
		t.Fatalf("Left %d, Segments %d", s.Left(), buf.Segments())
	}
	for s.Left() > 0 {
		dst := make([]byte, s.Len())
		if len(dst) > 0 {
			if n, ok := s.Next(dst[:len(dst)-1]); ok || n != 0 {
				t.Fatal("wrote into a buffer that is too short")
			}
		}
		n, ok := s.Next(dst)
		if !ok || n != len(dst) {
			t.Fatalf("Next: %d, %v; Len was %d", n, ok, len(dst))
		}
		out = append(out, dst)
	}
	if n, ok := s.Next(make([]byte, 100)); ok || n != 0 || s.Len() != 0 {
		t.Fatal("a packet after the last")
	}
	return out
}

// TestSegmenter compares each segment to the one gopacket makes.
func TestSegmenter(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		s := spec{
			v6: rapid.Bool().Draw(r, "v6"), tos: rapid.Byte().Draw(r, "tos"), df: rapid.Bool().Draw(r, "df"),
			id: rapid.Uint16().Draw(r, "id"),
		}
		size := rapid.IntRange(1, 1500).Draw(r, "size")
		s.payload = pattern(rapid.IntRange(0, min(64000, 60*size)).Draw(r, "length"))
		partial := rapid.Bool().Draw(r, "partial")
		if !s.v6 && rapid.Bool().Draw(r, "options") {
			s.options = []layers.IPv4Option{{OptionType: 0x94, OptionLength: 4, OptionData: []byte{0, 0}}}
		}
		bit := func(name string) bool { return rapid.Bool().Draw(r, name) }
		tcp := layers.TCP{
			SrcPort: 1, DstPort: 2, Seq: rapid.Uint32().Draw(r, "seq"), Ack: rapid.Uint32().Draw(r, "ack"), ACK: true,
			Window: rapid.Uint16().Draw(r, "window"), FIN: bit("fin"), PSH: bit("psh"), CWR: bit("cwr"), ECE: bit("ece"), URG: bit("urg"),
			Urgent: rapid.Uint16().Draw(r, "urgent"),
		}
		if bit("timestamps") {
			tcp.Options = []layers.TCPOption{{OptionType: 1}, {OptionType: 1}, {OptionType: 8, OptionLength: 10, OptionData: pattern(8)}}
		}
		udp := layers.UDP{SrcPort: layers.UDPPort(rapid.Uint16().Draw(r, "port")), DstPort: 2}
		isTCP := bit("tcp")
		s.l4 = &udp
		if isTCP {
			s.l4 = &tcp
		}
		b := s.build(t)
		buf := super(t, b, size, partial)
		defer buf.Release()
		if bit("padded") {
			buf.Bytes = append(buf.Bytes, 1, 2, 3)
		}
		got := cut(t, buf)

		all := s.payload
		for i, seg := range got {
			verify(t, seg)
			want := s
			want.id = s.id + uint16(i)
			want.payload = all[i*size : min(len(all), (i+1)*size)]
			u, c := udp, tcp
			want.l4 = &u
			if isTCP {
				c.Seq += uint32(i * size)
				c.FIN = c.FIN && i == len(got)-1
				c.PSH = c.PSH && i == len(got)-1
				c.CWR = c.CWR && i == 0
				want.l4 = &c
			}
			expect := want.build(t)
			if l4 := mustDecode(t, expect).L4; !isTCP && binary.BigEndian.Uint16(expect[l4+6:]) == 0 {
				binary.BigEndian.PutUint16(expect[l4+6:], 0xffff) // gopacket does not know RFC 768's exception
			}
			if !bytes.Equal(seg, expect) {
				r.Fatalf("segment %d of %d\n got % x\nwant % x", i, len(got), seg, expect)
			}
		}
		if want := max(1, (len(all)+size-1)/size); len(got) != want {
			r.Fatalf("%d segments, want %d", len(got), want)
		}
	})
}

func TestSegmenterSingle(t *testing.T) {
	for _, b := range [][]byte{tcpPacket(t, false, 100), tcpPacket(t, true, 101), udpPacket(t, false, 99), udpPacket(t, true, 1)} {
		for _, partial := range []bool{false, true} {
			buf := super(t, b, 0, partial)
			if partial && bytes.Equal(buf.Bytes, b) {
				t.Fatal("the checksum was to be partial")
			}
			got := cut(t, buf)
			if len(got) != 1 || !bytes.Equal(got[0], b) {
				t.Errorf("partial %v\n got % x\nwant % x", partial, got, b)
			}
			buf.FinishChecksum()
			if buf.GSO.NeedsCsum || !bytes.Equal(buf.Bytes, b) {
				t.Errorf("FinishChecksum\n got % x\nwant % x", buf.Bytes, b)
			}
			buf.Release()
		}
	}
}

// A sender that uses no UDP checksum gets none.
func TestSegmenterNoChecksum(t *testing.T) {
	b := udpPacket(t, false, 100)
	b[26], b[27] = 0, 0
	for _, seg := range cut(t, super(t, b, 30, false)) {
		if seg[26] != 0 || seg[27] != 0 {
			t.Errorf("checksum % x", seg[26:28])
		}
	}
}

func TestSegmenterMalformed(t *testing.T) {
	fragment := udpPacket(t, false, 64)
	fragment[6] = 0x20
	refix(fragment)
	for name, c := range map[string]struct {
		b []byte
		g GSO
	}{
		"TCP metadata on UDP":          {udpPacket(t, false, 50), GSO{Size: 10, Proto: TCP}},
		"neither TCP nor UDP":          {spec{proto: 47, payload: pattern(50)}.build(t), GSO{Size: 10, Proto: 47}},
		"a fragment":                   {fragment, GSO{Size: 10, Proto: UDP}},
		"UDP with options":             {spec{proto: UDP, payload: []byte{0, 1, 0, 2, 0, 8, 0, 0, 1, 1}}.build(t), GSO{Size: 1, Proto: UDP}},
		"not a packet":                 {make([]byte, 50), GSO{}},
		"checksum past the end":        {udpPacket(t, false, 0), GSO{NeedsCsum: true, CsumStart: 20, CsumOffset: 7}},
		"checksum in the IP header":    {udpPacket(t, false, 0), GSO{NeedsCsum: true, CsumStart: 10, CsumOffset: 6}},
		"checksum far past the buffer": {udpPacket(t, false, 0), GSO{NeedsCsum: true, CsumStart: 65535, CsumOffset: 65535}},
	} {
		t.Run(name, func(t *testing.T) {
			buf := Get(len(c.b))
			defer buf.Release()
			copy(buf.Bytes, c.b)
			buf.GSO = c.g
			if n := buf.Segments(); n != 0 {
				t.Errorf("%d segments", n)
			}
			if got := cut(t, buf); got != nil {
				t.Errorf("% x", got)
			}
			buf.FinishChecksum()
			if !bytes.Equal(buf.Bytes, c.b) {
				t.Error("FinishChecksum wrote")
			}
		})
	}
}

func TestSegmenterAllocates(t *testing.T) {
	buf := super(t, tcpPacket(t, false, 5000), 1000, true)
	defer buf.Release()
	var s Segmenter
	dst := make([]byte, 1500)
	if n := testing.AllocsPerRun(100, func() {
		s.Reset(buf)
		for s.Left() > 0 {
			s.Next(dst)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// ExampleSegmenter shows how a tunnel empties a buffer.
func ExampleSegmenter() {
	b := gopacket.NewSerializeBuffer()
	ip := &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolTCP, SrcIP: []byte{10, 0, 0, 1}, DstIP: []byte{10, 0, 1, 1}}
	tcp := &layers.TCP{SrcPort: 40000, DstPort: 443, ACK: true}
	tcp.SetNetworkLayerForChecksum(ip)
	gopacket.SerializeLayers(b, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, ip, tcp, gopacket.Payload(make([]byte, 3000)))

	buf := Get(len(b.Bytes()))
	defer buf.Release()
	copy(buf.Bytes, b.Bytes())
	buf.GSO = GSO{Size: 1400, Proto: TCP}

	var s Segmenter
	dst := make([]byte, 1500)
	for s.Reset(buf); s.Left() > 0; {
		n, _ := s.Next(dst[OuterLen:])
		PutOuter(dst, [4]byte{100, 64, 0, 1}, [4]byte{100, 64, 0, 2}, 4, 0, n)
		fmt.Println(OuterLen + n)
	}
	// Output:
	// 1460
	// 1460
	// 260
}
