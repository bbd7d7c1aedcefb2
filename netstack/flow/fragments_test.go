package flow

import (
	"net/netip"
	"testing"

	"patronus/netstack/packet"
)

func fragmentOf(version uint8, k packet.Key, id uint32, which packet.Fragment) *packet.Info {
	if which == packet.LaterFragment {
		k.SrcPort, k.DstPort = 0, 0
	}
	return &packet.Info{Key: k, Version: version, FragID: id, Fragment: which}
}

func TestFragments(t *testing.T) {
	v4 := key(packet.UDP, "10.0.0.1:1000", "10.0.0.2:53")
	v6 := key(packet.UDP, "[fd00::1]:1000", "[fd00::2]:53")
	tcp := v4
	tcp.Proto = packet.TCP
	options := v6
	options.Proto = 60 // what a later fragment says of a datagram with destination options
	life := int64(FragmentLife)
	for _, c := range []struct {
		name  string
		first *packet.Info
		later *packet.Info
		after int64
		want  bool
	}{
		{"v4", fragmentOf(4, v4, 7, packet.FirstFragment), fragmentOf(4, v4, 7, packet.LaterFragment), life, true},
		{"v6", fragmentOf(6, v6, 1<<30, packet.FirstFragment), fragmentOf(6, v6, 1<<30, packet.LaterFragment), 0, true},
		{"v6, another next header", fragmentOf(6, v6, 7, packet.FirstFragment), fragmentOf(6, options, 7, packet.LaterFragment), 0, true},
		{"too late", fragmentOf(4, v4, 7, packet.FirstFragment), fragmentOf(4, v4, 7, packet.LaterFragment), life + 1, false},
		{"another datagram", fragmentOf(4, v4, 7, packet.FirstFragment), fragmentOf(4, v4, 8, packet.LaterFragment), 0, false},
		{"another protocol", fragmentOf(4, v4, 7, packet.FirstFragment), fragmentOf(4, tcp, 7, packet.LaterFragment), 0, false},
		{"the other direction", fragmentOf(4, v4, 7, packet.FirstFragment), fragmentOf(4, v4.Reverse(), 7, packet.LaterFragment), 0, false},
		{"no first fragment", fragmentOf(4, v4, 7, packet.LaterFragment), fragmentOf(4, v4, 7, packet.LaterFragment), 0, false},
		{"whole", fragmentOf(4, v4, 7, packet.Whole), fragmentOf(4, v4, 7, packet.Whole), 0, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			cache := NewFragments(0)
			cache.Remember(c.first, 1)
			got := *c.later
			if ok := cache.Fill(&got, 1+c.after); ok != c.want {
				t.Fatalf("filled: %v", ok)
			}
			switch {
			case c.want && got.Key != c.first.Key:
				t.Errorf("key %+v", got.Key)
			case !c.want && got != *c.later:
				t.Errorf("refused, but changed: %+v", got)
			}
		})
	}
}

func TestFragmentsReuse(t *testing.T) {
	cache := NewFragments(0)
	old := key(packet.UDP, "10.0.0.1:1000", "10.0.0.2:53")
	young := key(packet.UDP, "10.0.0.1:2000", "10.0.0.2:54")
	cache.Remember(fragmentOf(4, old, 7, packet.FirstFragment), 1)
	cache.Remember(fragmentOf(4, young, 7, packet.FirstFragment), 2)
	in := fragmentOf(4, old, 7, packet.LaterFragment)
	if !cache.Fill(in, 3) || in.Key != young {
		t.Errorf("%+v", in.Key)
	}
}

// TestFragmentFlood: what was just remembered is known whatever else comes,
// and most of what fits is.
func TestFragmentFlood(t *testing.T) {
	cache := NewFragments(1)
	k := key(packet.UDP, "10.0.0.1:1000", "10.0.0.2:53")
	for id := range uint32(10_000) {
		cache.Remember(fragmentOf(4, k, id, packet.FirstFragment), int64(id))
		if !cache.Fill(fragmentOf(4, k, id, packet.LaterFragment), int64(id)) {
			t.Fatalf("%d is forgotten", id)
		}
	}
	known := 0
	for id := uint32(10_000 - 512); id < 10_000; id++ {
		if cache.Fill(fragmentOf(4, k, id, packet.LaterFragment), 10_000) {
			known++
		}
	}
	if known < 480 {
		t.Errorf("%d of the last 512 are known", known)
	}
}

func BenchmarkFragments(b *testing.B) {
	cache := NewFragments(1)
	k := packet.NewKey(packet.UDP, netip.MustParseAddrPort("10.0.0.1:1"), netip.MustParseAddrPort("10.0.0.2:2"))
	first, later := fragmentOf(4, k, 0, packet.FirstFragment), fragmentOf(4, k, 0, packet.LaterFragment)
	b.ReportAllocs()
	for b.Loop() {
		first.FragID++
		later.FragID++
		cache.Remember(first, 1)
		in := *later
		if !cache.Fill(&in, 1) {
			b.Fatal("forgotten")
		}
	}
}
