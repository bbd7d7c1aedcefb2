package lan

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"patronus/netstack/packet"
)

// members lists the packets of each run.
func members(m *merger) [][]int {
	var all [][]int
	for _, r := range m.runs {
		var run []int
		for i := r.first; i >= 0; i = m.next[i] {
			run = append(run, int(i))
		}
		all = append(all, run)
	}
	return all
}

// train is a run of n segments that follow each other.
func train(base segmentSpec, n int, build func(segmentSpec) []byte) []Out {
	var outs []Out
	for range n {
		outs = append(outs, outOf(build(base)))
		base.seq += uint32(base.payload)
		base.id++
		base.fill++
	}
	return outs
}

func TestMergePlan(t *testing.T) {
	base := segmentSpec{payload: 1000, seq: 1 << 31, ack: 7, id: 65535}
	with := func(change func(*segmentSpec)) segmentSpec {
		s := base
		s.seq += 1000
		s.id++
		change(&s)
		return s
	}
	// pair is the first segment and a second that differs from what follows it.
	pair := func(change func(*segmentSpec)) []Out {
		return []Out{outOf(tcpPacket(base)), outOf(tcpPacket(with(change)))}
	}
	corrupt := func(outs []Out, i int) []Out {
		outs[i].Bytes[len(outs[i].Bytes)-1] ^= 1
		return outs
	}
	v6 := base
	v6.v6 = true
	push := with(func(s *segmentSpec) { s.flags = tcpACK | tcpPSH })
	short := with(func(s *segmentSpec) { s.payload = 400 })
	afterShort := short
	afterShort.seq += 400
	afterShort.id++
	udp := segmentSpec{payload: 500, id: 3}
	padded := train(base, 3, tcpPacket)
	for i := range padded {
		padded[i].Bytes = append(padded[i].Bytes, 0, 0, 0)
	}
	other := base
	other.srcPort = 40001
	noSum := train(udp, 2, udpPacket)
	for i := range noSum {
		noSum[i].Bytes[ipv4Len+udpCsum], noSum[i].Bytes[ipv4Len+udpCsum+1] = 0, 0
	}
	unfinished := train(base, 2, tcpPacket)
	unfinished[1].GSO = packet.GSO{NeedsCsum: true, CsumStart: 20, CsumOffset: 16}
	interleaved := []Out{}
	for i := range 3 {
		interleaved = append(interleaved, train(base, 3, tcpPacket)[i], train(other, 3, tcpPacket)[i])
	}
	lost := train(base, 4, tcpPacket)
	lost = slices.Delete(lost, 2, 3)

	for name, c := range map[string]struct {
		pkts []Out
		want [][]int
	}{
		"in sequence":           {train(base, 4, tcpPacket), [][]int{{0, 1, 2, 3}}},
		"in sequence, IPv6":     {train(v6, 4, tcpPacket), [][]int{{0, 1, 2, 3}}},
		"datagrams":             {train(udp, 3, udpPacket), [][]int{{0, 1, 2}}},
		"two flows":             {interleaved, [][]int{{0, 2, 4}, {1, 3, 5}}},
		"link padding":          {padded, [][]int{{0, 1, 2}}},
		"a gap":                 {lost, [][]int{{0, 1}, {2}}},
		"PSH ends a run":        {[]Out{outOf(tcpPacket(base)), outOf(tcpPacket(push)), outOf(tcpPacket(with(func(s *segmentSpec) { s.seq += 1000; s.id++ })))}, [][]int{{0, 1}, {2}}},
		"PSH first":             {[]Out{outOf(tcpPacket(push)), outOf(tcpPacket(with(func(s *segmentSpec) { s.seq += 1000; s.id++ })))}, [][]int{{0}, {1}}},
		"short ends a run":      {[]Out{outOf(tcpPacket(base)), outOf(tcpPacket(short)), outOf(tcpPacket(afterShort))}, [][]int{{0, 1}, {2}}},
		"longer":                {pair(func(s *segmentSpec) { s.payload = 1001 }), [][]int{{0}, {1}}},
		"other acknowledgement": {pair(func(s *segmentSpec) { s.ack++ }), [][]int{{0}, {1}}},
		"other window":          {pair(func(s *segmentSpec) { s.window = 501 }), [][]int{{0}, {1}}},
		"other TOS":             {pair(func(s *segmentSpec) { s.tos = 3 }), [][]int{{0}, {1}}},
		"other TTL":             {pair(func(s *segmentSpec) { s.ttl = 63 }), [][]int{{0}, {1}}},
		"other options":         {pair(func(s *segmentSpec) { s.options = []byte{1, 1, 1, 1} }), [][]int{{0}, {1}}},
		"other DF":              {pair(func(s *segmentSpec) { s.df = true }), [][]int{{0}, {1}}},
		"other identification":  {pair(func(s *segmentSpec) { s.id++ }), [][]int{{0}, {1}}},
		"FIN":                   {pair(func(s *segmentSpec) { s.flags = tcpACK | 1 }), [][]int{{0}, {1}}},
		"no payload":            {pair(func(s *segmentSpec) { s.payload = 0 }), [][]int{{0}, {1}}},
		"first corrupt":         {corrupt(train(base, 3, tcpPacket), 0), [][]int{{0}, {1, 2}}},
		"middle corrupt":        {corrupt(train(base, 4, tcpPacket), 1), [][]int{{0}, {1}, {2, 3}}},
		"last corrupt":          {corrupt(train(base, 3, tcpPacket), 2), [][]int{{0, 1}, {2}}},
		"without checksum":      {noSum, [][]int{{0}, {1}}},
		"unfinished checksum":   {unfinished, [][]int{{0}, {1}}},
		"not decoded":           {[]Out{{Bytes: tcpPacket(base)}}, [][]int{{0}}},
		"nothing":               {nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			var m merger
			m.plan(c.pkts, true, true)
			if got := members(&m); !slices.EqualFunc(got, c.want, slices.Equal) {
				t.Errorf("runs %v, want %v", got, c.want)
			}
			m.plan(c.pkts, false, false)
			if len(m.runs) != len(c.pkts) {
				t.Errorf("merged although switched off: %v", members(&m))
			}
		})
	}
}

func TestMergeRespectsTheLargestPacket(t *testing.T) {
	pkts := train(segmentSpec{payload: 1400}, 60, tcpPacket)
	var m merger
	m.plan(pkts, true, true)
	if len(m.runs) != 2 || m.runs[0].length > maxMerged || m.runs[0].n != 46 {
		t.Fatalf("%+v", m.runs)
	}
	pkts = train(segmentSpec{payload: 100}, 300, udpPacket)
	m.plan(pkts, true, true)
	if len(m.runs) != 3 || m.runs[0].n != maxSegments {
		t.Fatalf("%+v", m.runs)
	}
}

// superpacket makes what r becomes, as the kernel sees it.
func superpacket(m *merger, r *run, pkts []Out) *packet.Buffer {
	var head [maxHeaders]byte
	n, g := r.header(head[:], pkts)
	b := packet.Get(int(r.length))
	at := copy(b.Bytes, head[:n])
	for i := r.first; i >= 0; i = m.next[i] {
		at += copy(b.Bytes[at:], pkts[i].Bytes[pkts[i].Info.Payload:pkts[i].Info.Length])
	}
	b.GSO = g
	return b
}

// Merging and cutting again gives back every packet, byte for byte and in order
// within its flow; the identification of a packet with DF may change.
func TestMergeThenCutIsIdentity(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		specs := make([]segmentSpec, rapid.IntRange(1, 4).Draw(t, "flows"))
		isUDP := make([]bool, len(specs))
		for i := range specs {
			specs[i] = segmentSpec{
				v6: rapid.Bool().Draw(t, "v6"), df: rapid.Bool().Draw(t, "df"),
				seq: rapid.Uint32().Draw(t, "seq"), id: rapid.Uint16().Draw(t, "id"),
				srcPort: uint16(40000 + i), payload: rapid.IntRange(1, 1400).Draw(t, "payload"),
				options: make([]byte, 4*rapid.IntRange(0, 10).Draw(t, "options")),
			}
			isUDP[i] = rapid.Bool().Draw(t, "udp")
		}
		var pkts []Out
		for range rapid.IntRange(1, 100).Draw(t, "packets") {
			i := rapid.IntRange(0, len(specs)-1).Draw(t, "flow")
			s := specs[i]
			switch rapid.IntRange(0, 12).Draw(t, "what") {
			case 0:
				s.flags = tcpACK | tcpPSH
			case 1:
				s.payload = rapid.IntRange(0, 1400).Draw(t, "other payload")
			case 2:
				s.ack++
			case 3:
				specs[i].seq += 99
			case 4:
				s.flags = tcpACK | 1
			}
			build := tcpPacket
			if isUDP[i] {
				build = udpPacket
			}
			p := outOf(build(s))
			if rapid.IntRange(0, 20).Draw(t, "corrupt") == 0 {
				p.Bytes[len(p.Bytes)-1] ^= 0x55
			}
			pkts = append(pkts, p)
			specs[i].seq += uint32(s.payload)
			specs[i].id++
		}
		before := make([][]byte, len(pkts))
		for i := range pkts {
			before[i] = slices.Clone(pkts[i].Bytes)
		}
		var m merger
		m.plan(pkts, true, true)
		seen := make([]bool, len(pkts))
		last := map[packet.Key]int{}
		for i := range m.runs {
			r := &m.runs[i]
			var seg packet.Segmenter
			var b *packet.Buffer
			if r.n > 1 {
				b = superpacket(&m, r, pkts)
				if got := b.Segments(); got != int(r.n) {
					t.Fatalf("%d segments of %d packets, %+v", got, r.n, b.GSO)
				}
				seg.Reset(b)
			}
			for j := r.first; j >= 0; j = m.next[j] {
				key := pkts[j].Info.Key
				if prev, ok := last[key]; seen[j] || ok && prev > int(j) {
					t.Fatalf("packet %d is repeated or late", j)
				}
				seen[j], last[key] = true, int(j)
				if b == nil {
					continue
				}
				got := make([]byte, seg.Len())
				if _, ok := seg.Next(got); !ok {
					t.Fatal("too few segments")
				}
				want := slices.Clone(before[j])
				if pkts[j].Info.Version == 4 && want[6]&0x40 != 0 {
					for _, x := range [][]byte{got, want} {
						copy(x[4:6], []byte{0, 0})
						copy(x[10:12], []byte{0, 0})
					}
				}
				if !bytes.Equal(got, want) {
					t.Fatalf("packet %d\n got %x\nwant %x", j, got[:60], want[:60])
				}
			}
			if b != nil {
				b.Release()
			}
		}
		if slices.Contains(seen, false) {
			t.Fatal("a packet is missing")
		}
		for i := range pkts {
			if !bytes.Equal(before[i], pkts[i].Bytes) {
				t.Fatal("a borrowed packet was changed")
			}
		}
	})
}

// The header that the kernel gets decodes, and its checksum field holds the sum
// of the pseudo-header.
func TestMergedHeader(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		pkts := train(segmentSpec{v6: v6, payload: 1200, options: make([]byte, 12)}, 5, tcpPacket)
		pkts[4] = outOf(tcpPacket(segmentSpec{v6: v6, payload: 700, options: make([]byte, 12), seq: 4800, id: 4, flags: tcpACK | tcpPSH}))
		var m merger
		m.plan(pkts, true, true)
		b := superpacket(&m, &m.runs[0], pkts)
		in := decoded(b.Bytes)
		if len(m.runs) != 1 || int(in.Length) != len(b.Bytes) || in.Flags != tcpACK|tcpPSH {
			t.Fatalf("%+v, %+v", m.runs, in)
		}
		want := packet.GSO{Size: 1200, HdrLen: in.Payload, Proto: packet.TCP, NeedsCsum: true, CsumStart: in.L4, CsumOffset: tcpCsum}
		if b.GSO != want {
			t.Errorf("%+v, want %+v", b.GSO, want)
		}
		if got := binary.BigEndian.Uint16(b.Bytes[in.L4+tcpCsum:]); got != fold(pseudoSum(b.Bytes, in)) {
			t.Errorf("checksum field %#x", got)
		}
		b.Release()
	}
}

func TestMergeAllocates(t *testing.T) {
	pkts := train(segmentSpec{payload: 1400}, 128, tcpPacket)
	var m merger
	m.plan(pkts, true, true)
	var head [maxHeaders]byte
	n := testing.AllocsPerRun(100, func() {
		m.plan(pkts, true, true)
		m.runs[0].header(head[:], pkts)
	})
	if n != 0 {
		t.Errorf("%v allocations a batch", n)
	}
}

// BenchmarkMerge is the finding of runs, checksums included; time is per packet.
func BenchmarkMerge(b *testing.B) {
	flows := make([][]Out, 8)
	for i := range flows {
		flows[i] = train(segmentSpec{payload: 1400, srcPort: uint16(1000 + i)}, 16, tcpPacket)
	}
	var mixed, small []Out
	for i := range 16 {
		for _, f := range flows {
			mixed = append(mixed, f[i])
		}
	}
	for i := range 128 {
		small = append(small, outOf(udpPacket(segmentSpec{payload: 200 + rand.N(3), srcPort: uint16(1000 + i)})))
	}
	for _, c := range []struct {
		name string
		pkts []Out
	}{
		{"one flow", train(segmentSpec{payload: 1400}, 128, tcpPacket)},
		{"eight flows", mixed},
		{"acks", train(segmentSpec{}, 128, tcpPacket)},
		{"small datagrams", small},
	} {
		b.Run(c.name, func(b *testing.B) {
			var m merger
			m.plan(c.pkts, true, true)
			b.ReportAllocs()
			b.SetBytes(int64(len(c.pkts[0].Bytes)))
			b.ResetTimer()
			for i := 0; i < b.N; i += len(c.pkts) {
				m.plan(c.pkts, true, true)
			}
		})
	}
}
