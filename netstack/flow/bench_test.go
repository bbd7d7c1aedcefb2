package flow

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"strconv"
	"sync/atomic"
	"testing"

	"patronus/netstack/packet"
)

const second = int64(1e9)

// stride spreads the packets of a benchmark like small buffers of their own.
const stride = 128

// keys makes n distinct TCP keys, in random order.
func keys(n int) []packet.Key {
	ks := make([]packet.Key, n)
	for i := range ks {
		src := netip.AddrFrom4([4]byte{10, 1, byte(i >> 16), byte(i >> 8)})
		dst := netip.AddrFrom4([4]byte{10, 2, byte(i), 7})
		ks[i] = packet.NewKey(packet.TCP, netip.AddrPortFrom(src, uint16(20000+i%30000)), netip.AddrPortFrom(dst, 443))
	}
	rand.New(rand.NewPCG(1, 2)).Shuffle(n, func(i, j int) { ks[i], ks[j] = ks[j], ks[i] })
	return ks
}

// wire writes a bare TCP acknowledgement with the given key.
func wire(b []byte, k *packet.Key) {
	src, dst := k.Src.Netip().As4(), k.Dst.Netip().As4()
	copy(b, []byte{0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, packet.TCP})
	copy(b[12:], src[:])
	copy(b[16:], dst[:])
	binary.BigEndian.PutUint16(b[10:], ^packet.Checksum(b[:20], 0))
	binary.BigEndian.PutUint16(b[20:], k.SrcPort)
	binary.BigEndian.PutUint16(b[22:], k.DstPort)
	b[32], b[33] = 5<<4, packet.FlagACK
}

// load fills a table with established flows and writes one packet of each,
// half of them replies.
func load(n int) (*Table, []byte) {
	t := New(Options{Max: n + n/4, Seed: 1})
	mem := make([]byte, n*stride)
	for i, k := range keys(n) {
		f, _ := t.Insert(&k, 0, 40, syn)
		f.Observe(false, 1, 40, syn|ack, 0)
		f.Observe(true, 1, 40, ack, 0)
		f.Bind(NewBinding(7, 1, 2, 3, 9))
		if i%2 == 1 {
			k = k.Reverse()
		}
		wire(mem[i*stride:], &k)
	}
	return t, mem
}

// step is what the engine does for each packet of a known flow.
func step(t *Table, b []byte, in *packet.Info, now int64) bool {
	if packet.Decode(b, in) != 0 {
		return false
	}
	f, forward := t.Lookup(&in.Key)
	if f == nil || !f.Binding().Current(7, 9) {
		return false
	}
	f.Observe(forward, 1, int(in.Length), in.Flags, now)
	return true
}

func BenchmarkPacket(b *testing.B) {
	for _, n := range []int{1, 1000, 50_000, 100_000} {
		b.Run("flows="+strconv.Itoa(n), func(b *testing.B) {
			t, mem := load(n)
			runtime.GC()
			b.ReportAllocs()
			var in packet.Info
			i := 0
			now := second
			for b.Loop() {
				if !step(t, mem[i*stride:i*stride+40], &in, now) {
					b.Fatal("flow not found")
				}
				if i++; i == n {
					i = 0
				}
				now += 100
			}
		})
	}
}

// BenchmarkRun is a run of 32 packets of one flow: each decoded, one lookup.
// The unit is one packet.
func BenchmarkRun(b *testing.B) {
	const run = 32
	t, mem := load(1000)
	b.ReportAllocs()
	var in, first packet.Info
	i := 0
	for b.Loop() {
		p := mem[i*stride : i*stride+40]
		packets, bytes, flags := 0, 0, uint8(0)
		packet.Decode(p, &first)
		for range run {
			if packet.Decode(p, &in) != 0 || !Same(&in.Key, &first.Key) {
				b.Fatal("not one run")
			}
			packets, bytes, flags = packets+1, bytes+int(in.Length), flags|in.Flags
		}
		f, forward := t.Lookup(&in.Key)
		if f == nil || !f.Binding().Current(7, 9) {
			b.Fatal("flow not found")
		}
		f.Observe(forward, packets, bytes, flags, second)
		if i++; i == 1000 {
			i = 0
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/run, "ns/packet")
}

func BenchmarkPacketParallel(b *testing.B) {
	for _, n := range []int{1, 50_000} {
		b.Run("flows="+strconv.Itoa(n), func(b *testing.B) {
			t, mem := load(n)
			runtime.GC()
			b.ReportAllocs()
			var worker atomic.Int32
			b.SetParallelism(1)
			b.RunParallel(func(pb *testing.PB) {
				var in packet.Info
				i := int(worker.Add(1)) * n / 3
				now := second
				for pb.Next() {
					if i >= n {
						i = 0
					}
					if !step(t, mem[i*stride:i*stride+40], &in, now) {
						b.Fail()
						return
					}
					i++
					now += 100
				}
			})
		})
	}
}

// BenchmarkBothWays is a LAN reader and a peer's goroutine on the two directions
// of one flow, a run of packets at a time.
func BenchmarkBothWays(b *testing.B) {
	t, mem := load(1)
	var in packet.Info
	packet.Decode(mem, &in)
	var worker atomic.Int32
	b.SetParallelism(1)
	b.RunParallel(func(pb *testing.PB) {
		k := in.Key
		if worker.Add(1)%2 == 0 {
			k = k.Reverse()
		}
		now := second
		for pb.Next() {
			f, forward := t.Lookup(&k)
			f.Observe(forward, 1, 40, ack, now)
			now += 100
		}
	})
}

func BenchmarkLookup(b *testing.B) {
	t, mem := load(1000)
	b.ReportAllocs()
	var in packet.Info
	packet.Decode(mem, &in)
	for b.Loop() {
		t.Lookup(&in.Key)
	}
}

func BenchmarkObserve(b *testing.B) {
	t, mem := load(1000)
	b.ReportAllocs()
	var in packet.Info
	packet.Decode(mem, &in)
	f, forward := t.Lookup(&in.Key)
	now := second
	for b.Loop() {
		f.Observe(forward, 1, 40, ack, now)
		now += 100
	}
}

func BenchmarkHash(b *testing.B) {
	s := newSeeds(1)
	k := keys(1)[0]
	for b.Loop() {
		s.hash(&k)
	}
}

// BenchmarkScan inserts keys that never come back into a full table.
func BenchmarkScan(b *testing.B) {
	t, _ := load(100_000)
	b.ReportAllocs()
	k := packet.NewKey(packet.TCP, netip.MustParseAddrPort("10.9.0.1:1"), netip.MustParseAddrPort("10.8.0.1:1"))
	now := second
	i := uint32(0)
	for b.Loop() {
		i++
		binary.BigEndian.PutUint32(k.Dst[12:], i)
		t.Insert(&k, now, 40, syn)
		now += 1000
	}
}

func BenchmarkExpire(b *testing.B) {
	t, _ := load(100_000)
	b.ReportAllocs()
	for b.Loop() {
		t.Expire(second, 1000)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/1000, "ns/flow")
}
