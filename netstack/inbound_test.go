package netstack

import (
	"encoding/binary"
	"maps"
	"slices"
	"testing"

	"github.com/google/gopacket/layers"

	"patronus/netstack/packet"
	"patronus/netstack/tunnel"
)

// What becomes of one packet that a tunnel delivers. The peer is east, over
// hq.wan0~east.wan0, and may be malicious.
func TestFromWANVerdicts(t *testing.T) {
	type want struct {
		forwarded, delivered uint64
		dropped              string
		back                 bool // the answer goes into the tunnel
	}
	ttl := func(s spec, ttl uint8) spec { s.ttl = ttl; return s }
	df := func(s spec) spec { s.df = true; return s }
	for _, f := range []struct {
		name                     string
		host, remote, other      string
		west, far, nowhere, mine string
		group, laptop            string
	}{
		{"v4", host4, remote4, other4, "10.3.0.10", "192.0.2.9", "10.1.77.1", "10.1.0.1", "224.0.0.5", laptop4},
		{"v6", host6, remote6, other6, "fd00:3::10", "2001:db8:9::9", "fd00:1:0:77::1", "fd00:1::1", "ff02::5", laptop6},
	} {
		for _, c := range []struct {
			name string
			pkt  spec
			want want
		}{
			{"to a host", datagram(f.remote, f.host, 4000, 5000, 100), want{forwarded: 1}},
			{"expires", ttl(datagram(f.remote, f.host, 4000, 5000, 100), 1), want{dropped: "ttl-expired", back: true}},
			{"too big for the port", df(datagram(f.remote, f.other, 4000, 5000, 1350)), want{dropped: "too-big", back: true}},
			{"nowhere", datagram(f.remote, f.nowhere, 4000, 5000, 10), want{dropped: "no-route", back: true}},
			{"outside", datagram(f.remote, f.far, 4000, 5000, 10), want{dropped: "no-route", back: true}},
			{"multicast", datagram(f.remote, f.group, 4000, 5000, 10), want{dropped: "martian"}},
			{"source of a third site", datagram(f.west, f.host, 4000, 5000, 10), want{dropped: "spoofed"}},
			{"source of ours", datagram(f.nowhere, f.host, 4000, 5000, 10), want{dropped: "spoofed"}},
			{"source of the appliance", datagram(f.mine, f.host, 4000, 5000, 10), want{dropped: "spoofed"}},
			{"source of nobody", datagram(f.far, f.host, 4000, 5000, 10), want{dropped: "spoofed"}},
			{"source of a device", datagram(f.laptop, f.host, 4000, 5000, 10), want{dropped: "spoofed"}},
			{"back where it came from", datagram(f.remote, f.remote+"1", 4000, 5000, 10), want{dropped: "no-route"}},
			{"a third site's, in full mesh", datagram(f.remote, f.west, 4000, 5000, 10), want{forwarded: 1}},
			{"to a device", datagram(f.remote, f.laptop, 4000, 5000, 10), want{forwarded: 1}},
			{"echo to the appliance", echo(f.remote, f.mine, 7, 10), want{delivered: 1}},
			{"service of the appliance", segment(f.remote, f.mine, 4000, 80, "S", 0), want{dropped: "denied"}},
		} {
			t.Run(f.name+"/"+c.name, func(t *testing.T) {
				p := newPlan("hq", "east", "west")
				r := newRig(t, p, p.config(t, "hq", twoPorts))
				over := r.byID("hq.wan0~east.wan0")
				got := r.delta(func() { r.overPath(over, c.pkt.build(t)) })
				dropped := map[string]uint64{}
				if c.want.dropped != "" {
					dropped[c.want.dropped] = 1
				}
				if got.FromWAN.Forwarded != c.want.forwarded || got.FromWAN.Delivered != c.want.delivered || !maps.Equal(got.FromWAN.Dropped, dropped) {
					t.Errorf("forwarded %d, delivered %d, dropped %v", got.FromWAN.Forwarded, got.FromWAN.Delivered, got.FromWAN.Dropped)
				}
				if back := got.ToWAN.Forwarded == 1; back != c.want.back {
					t.Errorf("answered: %v, want %v", back, c.want.back)
				}
				hosts := append(r.host("lan0"), r.host("lan1")...)
				if c.want.forwarded == 1 && len(hosts) == 1 {
					if in := decode(t, hosts[0]); in.TTL != 63 {
						t.Errorf("TTL %d", in.TTL)
					}
				}
			})
		}
	}
}

// The outer header has to name the path that the packet came by.
func TestFromWANMisdelivered(t *testing.T) {
	p := newPlan("hq", "east")
	r := newRig(t, p, p.config(t, "hq"))
	over, other := r.byID("hq.wan0~east.wan0"), r.byID("hq.wan0~east.lte0")
	inner := datagram(remote4, host4, 1, 2, 10).build(t)
	good := outer(over, inner)
	for name, change := range map[string]func(b []byte) []byte{
		"other source":      func(b []byte) []byte { return outer(other, inner) },
		"other destination": func(b []byte) []byte { copy(b[16:], []byte{240, 9, 9, 9}); return refix(b) },
		"no outer header":   func([]byte) []byte { return inner },
		"checksum":          func(b []byte) []byte { b[10]++; return b },
		"version inside":    func(b []byte) []byte { b[packet.OuterLen] = 0x65; return b },
		"empty":             func(b []byte) []byte { return b[:packet.OuterLen] },
		"fragment":          func(b []byte) []byte { b[6] = 0x20; return refix(b) },
	} {
		t.Run(name, func(t *testing.T) {
			b := change(slices.Clone(good))
			got := r.delta(func() { r.fromWAN(over.uplink, []tunnel.Inbound{{Bytes: b, Peer: over.peer, At: r.now()}}) })
			if got.FromWAN.Dropped["misdelivered"] != 1 || len(r.host("lan0")) > 0 {
				t.Errorf("%+v", got.FromWAN)
			}
		})
	}
	got := r.delta(func() { r.fromWAN(over.uplink, []tunnel.Inbound{{Bytes: good}, {Bytes: good}}) })
	if got.FromWAN.Dropped["misdelivered"] != 2 {
		t.Errorf("a peer that was removed: %+v", got.FromWAN)
	}
}

// refix recomputes an IPv4 header's checksum.
func refix(b []byte) []byte {
	b[10], b[11] = 0, 0
	binary.BigEndian.PutUint16(b[10:], ^packet.Checksum(b[:int(b[0]&15)*4], 0))
	return b
}

// A stock peer has its own address and no other.
func TestFromDevice(t *testing.T) {
	p := newPlan("hq", "east")
	r := newRig(t, p, p.config(t, "hq", twoPorts))
	for _, c := range []struct {
		src, dst, dropped string
		to                string
	}{
		{laptop4, host4, "", "lan0"},
		{laptop6, host6, "", "lan0"},
		{laptop4, remote4, "", ""},
		{laptop6, remote6, "", ""},
		{host4, remote4, "spoofed", ""},
		{remote6, host6, "spoofed", ""},
	} {
		got := r.delta(func() { r.fromDevice("laptop", datagram(c.src, c.dst, 1, 2, 10).build(t)) })
		if c.dropped != "" && got.FromWAN.Dropped[c.dropped] != 1 || c.dropped == "" && got.FromWAN.Forwarded != 1 {
			t.Errorf("%s to %s: %+v", c.src, c.dst, got.FromWAN)
		}
		if n := len(r.host("lan0")); c.to == "" != (n == 0) {
			t.Errorf("%s to %s: %d packets at the host", c.src, c.dst, n)
		}
	}
}

// Malformed packets are counted by what is wrong with them, in both directions.
func TestMalformed(t *testing.T) {
	p := newPlan("hq", "east")
	r := newRig(t, p, p.config(t, "hq"))
	over := r.byID("hq.wan0~east.wan0")
	whole4, whole6 := segment(remote4, host4, 1, 2, "A", 9).build(t), segment(remote6, host6, 1, 2, "A", 9).build(t)
	n := uint64(0)
	for _, b := range [][]byte{
		whole4[:19], whole4[:30], append([]byte{0x46}, whole4[1:]...), whole6[:39], whole6[:50],
		func() []byte { b := slices.Clone(whole4); b[10]++; return b }(),
		func() []byte { b := slices.Clone(whole4); b[32] = 0x10; return b }(), // TCP header of 4 bytes
		segment("127.0.0.1", host4, 1, 2, "A", 9).build(t),
		segment(remote4, "127.0.0.1", 1, 2, "A", 9).build(t),
	} {
		n++
		r.fromLAN("lan0", b)
		r.overPath(over, b)
	}
	st := r.Status()
	if st.Counters.ToWAN.Dropped["malformed"] != n || st.Counters.FromWAN.Dropped["malformed"] != n {
		t.Errorf("%d malformed, counted %v and %v", n, st.Counters.ToWAN.Dropped, st.Counters.FromWAN.Dropped)
	}
	sum := uint64(0)
	for _, c := range st.Malformed {
		sum += c
	}
	if sum != 2*n || len(st.Malformed) < 5 {
		t.Errorf("faults %v", st.Malformed)
	}
	if got := r.host("lan0"); len(got) > 0 {
		t.Errorf("%d answers to malformed packets", len(got))
	}
}

// SYNs that pass have their MSS cut to what the way carries.
func TestMSSClamp(t *testing.T) {
	p := newPlan("hq", "east")
	r := newRig(t, p, p.config(t, "hq", twoPorts))
	over := r.byID("hq.wan0~east.wan0")
	for _, c := range []struct {
		name string
		send func()
		port string
		want uint16
	}{
		{"in, v4", func() { r.overPath(over, segment(remote4, other4, 1, 2, "S", 0).build(t)) }, "lan1", 1300 - 40},
		{"in, v6", func() { r.overPath(over, segment(remote6, other6, 1, 2, "S", 0).build(t)) }, "lan1", 1300 - 60},
		{"in, wide", func() { r.overPath(over, segment(remote4, host4, 1, 3, "S", 0).build(t)) }, "lan0", 1460},
		{"between ports, v4", func() { r.fromLAN("lan0", segment(host4, other4, 1, 2, "S", 0).build(t)) }, "lan1", 1300 - 40},
		{"between ports, v6", func() { r.fromLAN("lan0", segment(host6, other6, 1, 2, "S", 0).build(t)) }, "lan1", 1300 - 60},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.send()
			got := r.host(c.port)
			if len(got) != 1 {
				t.Fatalf("%d packets", len(got))
			}
			in := decode(t, got[0])
			if mss := binary.BigEndian.Uint16(got[0][in.L4+22:]); mss != c.want {
				t.Errorf("MSS %d, want %d", mss, c.want)
			}
			checkSum(t, got[0])
		})
	}
}

// checkSum asks a second opinion about the transport checksum.
func checkSum(tb testing.TB, b []byte) {
	tb.Helper()
	in := decode(tb, b)
	n := uint64(len(b) - int(in.L4))
	var pseudo uint16
	if in.Version == 4 {
		pseudo = packet.Checksum(b[12:20], uint64(in.Key.Proto)+n)
	} else {
		pseudo = packet.Checksum(b[8:40], uint64(in.Key.Proto)+n)
	}
	if sum := packet.Checksum(b[in.L4:], uint64(pseudo)); sum != 0xffff {
		tb.Errorf("transport checksum is off: %#x", sum)
	}
}

// Fragments belong to the flow of the first one, and wait for nobody.
func TestFragments(t *testing.T) {
	for _, f := range []struct{ name, host, remote string }{{"v4", host4, remote4}, {"v6", host6, remote6}} {
		big := spec{src: f.host, dst: f.remote, id: 99, l4: &layers.UDP{SrcPort: 9, DstPort: 53}, payload: make([]byte, 3000)}
		for _, c := range []struct {
			name            string
			order           []int
			forwarded, lost uint64
		}{
			{"in order", []int{0, 1, 2}, 3, 0},
			{"the rest out of order", []int{0, 2, 1}, 3, 0},
			{"the first in between", []int{1, 0, 2}, 2, 1},
			{"the first lost", []int{1, 2}, 0, 2},
			{"twice", []int{0, 0, 1, 1, 2}, 5, 0},
		} {
			t.Run(f.name+"/"+c.name, func(t *testing.T) {
				p := newPlan("hq", "east")
				r := newRig(t, p, p.config(t, "hq"))
				all := pieces(t, big.build(t), 1200)
				if len(all) != 3 {
					t.Fatalf("%d pieces", len(all))
				}
				got := r.delta(func() {
					for _, i := range c.order {
						r.fromLAN("lan0", all[i])
					}
				})
				if got.ToWAN.Forwarded != c.forwarded || got.ToWAN.Dropped["fragment-lost"] != c.lost {
					t.Errorf("out: %+v", got.ToWAN)
				}
				for v := range r.flows.All() {
					if v.Key.DstPort != 53 || v.Forward.Packets != c.forwarded {
						t.Errorf("flow %s counts %d", v.ID(), v.Forward.Packets)
					}
				}
				back := spec{src: f.remote, dst: f.host, id: 99, l4: &layers.UDP{SrcPort: 53, DstPort: 9}, payload: make([]byte, 3000)}
				in := pieces(t, back.build(t), 1200)
				got = r.delta(func() {
					for _, i := range c.order {
						r.overPath(r.byID("hq.wan0~east.wan0"), in[i])
					}
				})
				if got.FromWAN.Forwarded != c.forwarded || got.FromWAN.Dropped["fragment-lost"] != c.lost {
					t.Errorf("in: %+v", got.FromWAN)
				}
				if n := len(r.host("lan0")); n != int(c.forwarded) {
					t.Errorf("%d at the host", n)
				}
			})
		}
	}
}

// An IPv4 packet without DF is cut where it does not fit, in every direction.
func TestFragmentation(t *testing.T) {
	p := newPlan("hq", "east")
	r := newRig(t, p, p.config(t, "hq", twoPorts))
	over := r.byID("hq.wan0~east.wan0")
	for _, c := range []struct {
		name string
		send func()
		port string
		mtu  int
	}{
		{"into a tunnel", func() { r.fromLAN("lan0", datagram(host4, remote4, 1, 2, 2000).build(t)) }, "", 0},
		{"between ports", func() { r.fromLAN("lan0", datagram(host4, other4, 1, 2, 1400).build(t)) }, "lan1", 1300},
		{"out of a tunnel", func() { r.overPath(over, datagram(remote4, other4, 1, 2, 1360).build(t)) }, "lan1", 1300},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := 0
			for _, q := range *r.pathList.Load() {
				before += queued(q)
			}
			got := r.delta(c.send)
			if len(got.ToWAN.Dropped)+len(got.FromWAN.Dropped) > 0 || len(r.host("lan0")) > 0 {
				t.Errorf("%+v", got)
			}
			if c.port == "" {
				after := 0
				for _, q := range *r.pathList.Load() {
					after += queued(q)
				}
				if after-before != 2 {
					t.Errorf("%d fragments", after-before)
				}
				return
			}
			all := r.host(c.port)
			if len(all) != 2 {
				t.Fatalf("%d packets", len(all))
			}
			for i, b := range all {
				in := decode(t, b)
				if len(b) > c.mtu || in.TTL != 63 || in.Fragment != []packet.Fragment{packet.FirstFragment, packet.LaterFragment}[i] {
					t.Errorf("piece %d: %d bytes, TTL %d, %v", i, len(b), in.TTL, in.Fragment)
				}
			}
		})
	}
	// A fragment to the appliance itself is its own to put together.
	all := pieces(t, echo(host4, "10.1.0.1", 7, 2000).build(t), 1200)
	if got := r.delta(func() { r.fromLAN("lan0", all...) }); got.ToWAN.Delivered != uint64(len(all)) {
		t.Errorf("fragments to the appliance: %+v", got.ToWAN)
	}
}
