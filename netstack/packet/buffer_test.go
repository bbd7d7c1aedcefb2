package packet

import (
	"net/netip"
	"testing"
)

func TestBuffer(t *testing.T) {
	for _, n := range []int{0, 1, SmallSize - Headroom, SmallSize - Headroom + 1, BigSize - Headroom} {
		b := Get(n)
		want := SmallSize
		if n > SmallSize-Headroom {
			want = BigSize
		}
		if len(b.Bytes) != n || b.Cap() != want || b.GSO != (GSO{}) || b.Info != (Info{}) {
			t.Errorf("Get(%d): %d bytes, Cap %d, %+v %+v", n, len(b.Bytes), b.Cap(), b.GSO, b.Info)
		}
		b.GSO.Size, b.Info.Version = 1, 4
		b.Release()
	}
	defer func() {
		if recover() == nil {
			t.Error("no panic for too large a buffer")
		}
	}()
	Get(BigSize - Headroom + 1)
}

func TestHeadroom(t *testing.T) {
	b := Get(10)
	defer b.Release()
	b.Bytes[0] = 1
	h := b.Headroom(20)
	if len(h) != 30 || h[20] != 1 {
		t.Fatalf("%d bytes, % x", len(h), h)
	}
	b.Bytes = b.Bytes[4:8] // a link header taken off
	b.Bytes[0] = 2
	if h := b.Headroom(Headroom + 4); len(h) != Headroom+8 || h[Headroom+4] != 2 {
		t.Fatalf("%d bytes, % x", len(h), h)
	}
	defer func() {
		if recover() == nil {
			t.Error("no panic for memory that is not there")
		}
	}()
	b.Headroom(Headroom + 5)
}

func TestReleaseTwice(t *testing.T) {
	b := Get(10)
	b.Release()
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	b.Release()
}

func TestBufferAllocates(t *testing.T) {
	for _, n := range []int{100, 60000} {
		Get(n).Release()
		if got := testing.AllocsPerRun(1000, func() { Get(n).Release() }); got != 0 {
			t.Errorf("%d bytes: %v allocations", n, got)
		}
	}
}

func TestKey(t *testing.T) {
	for _, s := range []string{"10.1.2.3", "2001:db8::1", "0.0.0.0", "::"} {
		ip := netip.MustParseAddr(s)
		a := AddrFrom(ip)
		if a.Netip() != ip || a.Is4() != ip.Is4() {
			t.Errorf("%s: %v %v", s, a.Netip(), a.Is4())
		}
	}
	k := NewKey(TCP, netip.MustParseAddrPort("10.0.0.1:1"), netip.MustParseAddrPort("10.0.0.2:2"))
	if r := k.Reverse(); r.Reverse() != k || r.Src != k.Dst || r.DstPort != 1 || r.Proto != TCP {
		t.Errorf("%+v", r)
	}
}
