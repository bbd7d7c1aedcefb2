package flow

import (
	"encoding/binary"
	"math/bits"
	"runtime"
	"testing"

	"patronus/netstack/packet"
)

// scan inserts n SYNs to ever new addresses, from `from` on, each gap ns later.
func scan(t testing.TB, table *Table, from, n int, now, gap int64) int64 {
	t.Helper()
	k := key(packet.TCP, "10.99.0.1:4000", "10.98.0.1:22")
	for i := range n {
		binary.BigEndian.PutUint32(k.Dst[12:], uint32(from+i))
		if f, _ := table.Insert(&k, now, 60, syn); f == nil {
			t.Fatal("no flow")
		}
		if table.Len() > int(table.max) {
			t.Fatalf("%d flows, at most %d", table.Len(), table.max)
		}
		now += gap
	}
	return now
}

func live(t *testing.T, table *Table, fs []*Flow) (n int) {
	t.Helper()
	for _, f := range fs {
		if g, _ := table.Lookup(&f.key); g == f {
			n++
		}
	}
	return n
}

// TestScanSparesTheEstablished scans a full table, five times over, while its
// established flows are silent.
func TestScanSparesTheEstablished(t *testing.T) {
	const most = 4000
	for _, quiet := range []int{100, most / 2, most*3/4 - 1} {
		table := New(Options{Max: most, Seed: 3})
		var fs []*Flow
		for i := range quiet {
			fs = append(fs, open(table, numbered(packet.TCP, i), 0))
		}
		scan(t, table, 0, 5*most, 100*second, 1000)
		left := live(t, table, fs)
		if left < quiet-quiet/200 {
			t.Errorf("%d of %d established flows are left", left, quiet)
		}
		c := table.Counters()
		if c.EvictedEstablished != uint64(quiet-left) || c.Established != left || c.Live > most || c.Live < most-1 {
			t.Errorf("%d left, %+v", left, c)
		}
	}
}

// TestIdleDoNotKeepOut fills the table with established flows: new ones still
// find a place and live long enough to become established.
func TestIdleDoNotKeepOut(t *testing.T) {
	const most = 10_000
	table := New(Options{Max: most, Seed: 3})
	var old []*Flow
	for i := range most {
		old = append(old, open(table, numbered(packet.TCP, i), int64(i)))
	}
	now := scan(t, table, 0, most/4, 100*second, 1000)
	if n := live(t, table, old); n != most-most/4 {
		t.Errorf("%d of %d idle flows left", n, most)
	}
	var young []*Flow
	for i := range 1000 {
		young = append(young, open(table, numbered(packet.TCP, most+i), now))
		now += 1000
	}
	if n := live(t, table, young); n != len(young) {
		t.Errorf("%d of %d new flows left", n, len(young))
	}
}

// TestEvictsTheOld checks that nobody who spoke within the last second goes
// while somebody silent for longer is of no more worth.
func TestEvictsTheOld(t *testing.T) {
	const most = 8192
	var gone []View
	table := New(Options{Max: most, Seed: 5, Sink: func(e Event) {
		if e.Kind == Ended {
			gone = append(gone, e.View)
		}
	}})
	now := 1000 * second
	for i := range most {
		k := numbered(packet.UDP, i)
		seen := now
		if i%4 == 0 {
			seen -= 10 * second
		}
		f, _ := table.Insert(&k, seen, 60, 0)
		f.Bind(NewBinding(1, 1, 0, 0, 0))
	}
	scan(t, table, 0, most/8, now, 1)
	if len(gone) != most/8 {
		t.Fatalf("%d ended", len(gone))
	}
	young := 0
	for _, v := range gone {
		if now-v.Seen < second {
			young++
		}
	}
	// A sample of 16 without one of the eldest eighth has (7/8)^16 = 12 %
	// at the end; without any of the old quarter 1 % at first.
	if young > len(gone)/10 {
		t.Errorf("%d of %d had spoken within the last second", young, len(gone))
	}
}

func TestClosedGoFirst(t *testing.T) {
	table := New(Options{Max: 16, Shards: 1})
	for i := range 15 {
		open(table, numbered(packet.TCP, i), 0)
	}
	closed := open(table, numbered(packet.TCP, 15), 50*second)
	closed.Observe(true, 1, 40, rst, 50*second)
	scan(t, table, 0, 1, 50*second, 0)
	if n := live(t, table, []*Flow{closed}); n != 0 {
		t.Error("the closed flow stayed")
	}
}

// TestTinyTables holds the bound where shards are empty and buckets collide.
func TestTinyTables(t *testing.T) {
	for most := 1; most <= 300; most = most*3/2 + 1 {
		for _, shards := range []int{1, 16, 64} {
			table := New(Options{Max: most, Shards: shards})
			now := scan(t, table, 0, 3000, second, 1000)
			n := 0
			for range table.All() {
				n++
			}
			if n != table.Len() || n > most || n < most*3/4 {
				t.Errorf("Max %d, %d shards: %d yielded, Len %d", most, shards, n, table.Len())
			}
			table.Expire(now+100*second, 1<<20)
			if table.Len() != 0 {
				t.Errorf("Max %d, %d shards: %d left", most, shards, table.Len())
			}
		}
	}
}

// TestOneHash breaks the hash: every key has the same home. Time stays bounded
// and so does the table.
func TestOneHash(t *testing.T) {
	table := New(Options{Max: 10_000, Shards: 4})
	table.seeds = seeds{}
	scan(t, table, 0, 3000, second, 1000)
	if n := table.Len(); n != maxProbe*bucketSlots {
		t.Errorf("%d flows", n)
	}
	n := 0
	for v := range table.All() {
		if f, forward := table.Lookup(&v.Key); f == nil || !forward {
			t.Errorf("%s not found", v.ID())
		}
		n++
	}
	if n != table.Len() {
		t.Errorf("%d yielded of %d", n, table.Len())
	}
}

// TestHashSpreads looks at the keys that networks are made of: runs of
// addresses and ports. Each bit of the home and the tag must be even.
func TestHashSpreads(t *testing.T) {
	const n = 1 << 16
	next := map[string]func(k *packet.Key, i int){
		"destinations": func(k *packet.Key, i int) { binary.BigEndian.PutUint32(k.Dst[12:], uint32(i)) },
		"ports":        func(k *packet.Key, i int) { k.SrcPort = uint16(i) },
		"both ports":   func(k *packet.Key, i int) { k.SrcPort, k.DstPort = uint16(i), uint16(n-i) },
		"subnets":      func(k *packet.Key, i int) { binary.BigEndian.PutUint16(k.Src[6:], uint16(i)); k.SrcPort = uint16(i) },
		"pairs": func(k *packet.Key, i int) {
			binary.BigEndian.PutUint32(k.Src[12:], uint32(i))
			binary.BigEndian.PutUint32(k.Dst[12:], uint32(n-i))
		},
	}
	for name, set := range next {
		for seed := uint64(1); seed < 5; seed++ {
			s := newSeeds(seed)
			k := key(packet.TCP, "10.0.0.1:40000", "10.1.0.1:443")
			var load [1024]int
			distinct := map[uint64]bool{}
			ones := [64]int{}
			for i := range n {
				set(&k, i)
				h := s.hash(&k)
				distinct[h] = true
				load[h>>32%1024]++
				for m := h; m != 0; m &= m - 1 {
					ones[bits.TrailingZeros64(m)]++
				}
			}
			chi := 0.0
			for _, c := range load {
				d := float64(c) - n/1024
				chi += d * d / (n / 1024)
			}
			// Chi-square with 1023 degrees of freedom: mean 1023, deviation 45.
			if chi > 1023+6*45 {
				t.Errorf("%s, seed %d: chi-square %.0f", name, seed, chi)
			}
			if len(distinct) < n-1 {
				t.Errorf("%s, seed %d: %d collisions", name, seed, n-len(distinct))
			}
			for b, c := range ones {
				if c < n*48/100 || c > n*52/100 {
					t.Errorf("%s, seed %d: bit %d is set %d times of %d", name, seed, b, c, n)
				}
			}
		}
	}
}

// TestMemory reports what a full table takes and that a scan adds nothing.
func TestMemory(t *testing.T) {
	const most = 100_000
	base := heap()
	table := New(Options{Max: most})
	empty := heap() - base
	for i := range most {
		open(table, numbered(packet.TCP, i), 0)
	}
	full := heap() - base
	scan(t, table, 0, 20_000, 100*second, 1000)
	scanned := heap() - base
	t.Logf("heap with Max = %d: empty %.1f MB, full %.1f MB, after a scan %.1f MB", most, mb(empty), mb(full), mb(scanned))
	if full > 20<<20 || scanned > full+1<<20 {
		t.Errorf("empty %d, full %d, after a scan %d bytes", empty, full, scanned)
	}
	runtime.KeepAlive(table)
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func mb(n int64) float64 { return float64(n) / (1 << 20) }
