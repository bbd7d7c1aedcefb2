package packet

import (
	"fmt"
	"testing"

	"github.com/google/gopacket/layers"
)

func benchPackets(b *testing.B, run func(b *testing.B, p []byte)) {
	for _, c := range []struct {
		name string
		p    []byte
	}{
		{"IPv4TCP", tcpPacket(b, false, 1360)},
		{"IPv4UDP", udpPacket(b, false, 1360)},
		{"IPv6TCP", tcpPacket(b, true, 1340)},
		{"IPv6UDP", udpPacket(b, true, 1340)},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			run(b, c.p)
		})
	}
}

func BenchmarkDecode(b *testing.B) {
	benchPackets(b, func(b *testing.B, p []byte) {
		var in Info
		for b.Loop() {
			if Decode(p, &in) != OK {
				b.Fatal("refused")
			}
		}
	})
}

// BenchmarkDecodeGopacket is what Decode is compared to.
func BenchmarkDecodeGopacket(b *testing.B) {
	o := newOracle()
	benchPackets(b, func(b *testing.B, p []byte) {
		for b.Loop() {
			if !o.decode(p) {
				b.Fatal("refused")
			}
		}
	})
}

func BenchmarkChecksum(b *testing.B) {
	for _, n := range []int{64, 1400, 65535} {
		p := pattern(n)
		for _, v := range []struct {
			name string
			sum  func([]byte) uint64
		}{{"fast", sumWords}, {"generic", sumGeneric}} {
			b.Run(fmt.Sprintf("%d/%s", n, v.name), func(b *testing.B) {
				b.SetBytes(int64(n))
				for b.Loop() {
					v.sum(p)
				}
			})
		}
	}
}

func BenchmarkSegmenter(b *testing.B) {
	for _, c := range []struct {
		name string
		p    []byte
		size int
	}{
		{"IPv4TCP", tcpPacket(b, false, 64000), 1360},
		{"IPv6TCP", tcpPacket(b, true, 64000), 1340},
		{"IPv4UDP", udpPacket(b, false, 64000), 1372},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(c.p)))
			buf := super(b, c.p, c.size, true)
			defer buf.Release()
			var s Segmenter
			dst := make([]byte, 1500)
			for b.Loop() {
				for s.Reset(buf); s.Left() > 0; {
					s.Next(dst)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(buf.Segments()), "ns/segment")
		})
	}
}

func BenchmarkBuffer(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		Get(1400).Release()
	}
}

func BenchmarkClampMSS(b *testing.B) {
	p := spec{l4: &layers.TCP{SYN: true, Options: []layers.TCPOption{{OptionType: 2, OptionLength: 4, OptionData: []byte{5, 0xb4}}}, SrcPort: 1, DstPort: 2}}.build(b)
	in := mustDecode(b, p)
	for b.Loop() {
		ClampMSS(p, &in, 1400)
	}
}

func BenchmarkTooBig(b *testing.B) {
	p := tcpPacket(b, true, 1400)
	in := mustDecode(b, p)
	dst := make([]byte, 0, 1500)
	b.ReportAllocs()
	for b.Loop() {
		AppendTooBig(dst, p, &in, our6, 1300)
	}
}
