package netstack

import (
	"testing"

	"github.com/google/gopacket/layers"

	"patronus/netstack/packet"
	"patronus/netstack/tunnel"
)

// seeds are packets that reach every verdict.
func seeds(tb testing.TB) [][]byte {
	var all [][]byte
	for _, f := range []struct{ host, remote, own string }{{host4, remote4, "10.1.0.1"}, {host6, remote6, "fd00:1::1"}} {
		for _, pair := range [][2]string{{f.host, f.remote}, {f.remote, f.host}, {f.host, f.own}, {f.remote, f.own}} {
			short := datagram(pair[0], pair[1], 1, 53, 8)
			short.ttl = 1
			all = append(all,
				datagram(pair[0], pair[1], 1, 2, 8).build(tb), datagram(pair[0], pair[1], 1, 2, 1450).build(tb), short.build(tb),
				segment(pair[0], pair[1], 1, 443, "S", 0).build(tb), segment(pair[0], pair[1], 1, 443, "A", 20).build(tb),
				segment(pair[0], pair[1], 1, 443, "R", 0).build(tb), echo(pair[0], pair[1], 3, 8).build(tb),
				unreachable(tb, pair[0], datagram(pair[1], pair[0], 2, 1, 8).build(tb)),
			)
			big := spec{src: pair[0], dst: pair[1], id: 5, l4: &layers.UDP{SrcPort: 9, DstPort: 53}, payload: make([]byte, 1500)}
			all = append(all, pieces(tb, big.build(tb), 800)...)
		}
	}
	return all
}

// accounted fails unless one packet was counted once. A packet that had to be
// cut is forwarded as its pieces.
func accounted(t *testing.T, c DirectionCounters, b []byte) {
	t.Helper()
	sum := c.Forwarded + c.Delivered
	for _, n := range c.Dropped {
		sum += n
	}
	var in packet.Info
	cut := packet.Decode(b, &in) == packet.OK && in.Version == 4 && b[6]&0x40 == 0 && in.Length > 1280
	if sum != 1 && !(cut && sum > 1) {
		t.Errorf("counted %d times: %+v", sum, c)
	}
}

// Whatever the LAN sends: no panic, and each packet is counted once.
func FuzzToWAN(f *testing.F) {
	for _, b := range seeds(f) {
		f.Add(b, false)
		f.Add(b, true)
	}
	p := newPlan("hq", "east")
	plain := newRig(f, p, p.config(f, "hq", twoPorts))
	strict := newRig(f, p, p.config(f, "hq", twoPorts, guarded(guard, "reject")))
	f.Fuzz(func(t *testing.T, b []byte, policy bool) {
		if len(b) > packet.BigSize-packet.Headroom {
			return
		}
		r := plain
		if policy {
			r = strict
		}
		r.tb = t
		got := r.delta(func() { r.fromLAN("lan0", b) })
		accounted(t, got.ToWAN, b)
		r.host("lan0")
		r.host("lan1")
		r.seen()
	})
}

// Whatever a peer sends through a tunnel, with or without a right outer header.
func FuzzFromWAN(f *testing.F) {
	for _, b := range seeds(f) {
		f.Add(b, true, false)
		f.Add(b, false, true)
	}
	p := newPlan("hq", "east")
	plain := newRig(f, p, p.config(f, "hq", twoPorts))
	strict := newRig(f, p, p.config(f, "hq", twoPorts, guarded(guard, "reject")))
	f.Fuzz(func(t *testing.T, b []byte, wrapped, policy bool) {
		if len(b) > 60_000 || len(b) == 0 {
			return
		}
		r := plain
		if policy {
			r = strict
		}
		r.tb = t
		over := r.byID("hq.wan0~east.wan0")
		bytes := append([]byte(nil), b...)
		if wrapped {
			bytes = outer(over, b)
		}
		_, _, _, inner, ok := packet.ParseOuter(bytes)
		inner = append([]byte(nil), inner...)
		probe := ok && len(inner) >= probeHeader && inner[0]>>4 == 4 && [4]byte(inner[12:16]) == over.remote && [4]byte(inner[16:20]) == over.uplink.source
		got := r.delta(func() {
			r.fromWAN(over.uplink, []tunnel.Inbound{{Bytes: bytes, Peer: over.peer, At: r.now()}})
		})
		if !probe {
			accounted(t, got.FromWAN, inner)
		}
		r.host("lan0")
		r.host("lan1")
		r.seen()
	})
}
