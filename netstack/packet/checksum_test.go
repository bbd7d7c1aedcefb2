package packet

import (
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"
)

func TestChecksum(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	mem := make([]byte, 65600)
	fill := func(kind int) {
		for i := range mem {
			switch kind {
			case 0:
				mem[i] = byte(rnd.Uint32())
			case 1:
				mem[i] = 0xff // carries everywhere
			case 2:
				mem[i] = 0
			}
		}
	}
	for kind := range 3 {
		fill(kind)
		for n := range 301 {
			for align := range 33 {
				compareSums(t, mem[align:align+n:align+n], uint64(n*align))
			}
		}
		for _, n := range []int{511, 512, 513, 1024, 1399, 1400, 1420, 4095, 9000, 65535, 65536} {
			for align := range 4 {
				compareSums(t, mem[align:align+n:align+n], 0xffff)
			}
		}
	}
}

func compareSums(t *testing.T, b []byte, initial uint64) {
	t.Helper()
	want := naive(b, uint32(initial))
	if got := Checksum(b, initial); got != want {
		t.Fatalf("length %d: %#04x, want %#04x", len(b), got, want)
	}
	if a, g := fold(sumWords(b)), fold(sumGeneric(b)); a != g {
		t.Fatalf("length %d: sumWords %#04x, sumGeneric %#04x", len(b), a, g)
	}
}

// Sums of parts of even length add up.
func TestChecksumParts(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		b := rapid.SliceOfN(rapid.Byte(), 0, 5000).Draw(r, "bytes")
		at := rapid.IntRange(0, len(b)/2).Draw(r, "half") * 2
		if got, want := Checksum(b[at:], uint64(Checksum(b[:at], 0))), naive(b, 0); got != want {
			r.Fatalf("%#04x, want %#04x", got, want)
		}
	})
}

// A large initial sum is folded too.
func TestChecksumInitial(t *testing.T) {
	for _, c := range []struct {
		initial uint64
		want    uint16
	}{{0, 0x0102}, {0xffff, 0x0102}, {1 << 16, 0x0103}, {1 << 48, 0x0103}, {^uint64(0), 0x0102}, {0x1_0000_fefd, 0x1}} {
		if got := Checksum([]byte{1, 2}, c.initial); got != c.want {
			t.Errorf("initial %#x: %#04x, want %#04x", c.initial, got, c.want)
		}
	}
}

func FuzzChecksum(f *testing.F) {
	f.Add([]byte{1}, uint16(3))
	f.Add(pattern(1500), uint16(0xffff))
	f.Fuzz(func(t *testing.T, b []byte, initial uint16) {
		compareSums(t, b, uint64(initial))
	})
}
