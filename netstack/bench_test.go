package netstack

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"

	"patronus/configs"
	"patronus/netstack/lan"
	"patronus/netstack/packet"
	"patronus/netstack/tunnel"
)

// hole is a LAN port that takes everything.
type hole struct{ *recorder }

func (hole) Write([]lan.Out) error { return nil }

// benchRig is hq with lan0 as a hole, lan1 likewise, and a table for many flows.
func benchRig(tb testing.TB) *rig {
	p := newPlan("hq", "east")
	r := newRig(tb, p, nil)
	r.opener.port["lan0"] = hole{newRecorder("lan0", 1500)}
	r.opener.port["lan1"] = hole{newRecorder("lan1", 1500)}
	r.apply(p.config(tb, "hq", twoPorts))
	return r
}

// manyFlows are UDP packets of n flows from one /24 to another.
func manyFlows(tb testing.TB, src, dst string, n int) [][]byte {
	tb.Helper()
	all := make([][]byte, n)
	template := datagram(src, dst, 1, 5000, 64).build(tb)
	for i := range all {
		b := append([]byte(nil), template...)
		b[15] = byte(10 + i%200)
		binary.BigEndian.PutUint16(b[20:], uint16(1024+i/200))
		all[i] = refix(b)
	}
	return all
}

// BenchmarkToWAN is decode, flow, verdict, TTL, MSS and a LAN port that takes
// everything; "tunnel" instead the queue of a tunnel that is full.
func BenchmarkToWAN(b *testing.B) {
	for _, to := range []struct{ name, dst string }{{"port", other4}, {"tunnel", remote4}} {
		for _, flows := range []int{1, 1000, 100_000} {
			for _, batch := range []int{1, 32} {
				b.Run(fmt.Sprintf("%s/flows=%d/batch=%d", to.name, flows, batch), func(b *testing.B) {
					r := benchRig(b)
					o := r.outbound("lan0")
					pkts := manyFlows(b, host4, to.dst, flows)
					bufs := make([]*packet.Buffer, batch)
					at := 0
					step := func() {
						for i := range bufs {
							p := pkts[at]
							if at++; at == len(pkts) {
								at = 0
							}
							bufs[i] = packet.Get(len(p))
							copy(bufs[i].Bytes, p)
						}
						r.toWAN(o, bufs)
					}
					for range 2*flows/batch + 300 {
						step()
					}
					b.ReportAllocs()
					b.ResetTimer()
					for n := 0; n < b.N; n += batch {
						step()
					}
					b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N), "ns/packet")
				})
			}
		}
	}
}

// BenchmarkFromWAN is unwrapping, in-band counting, decode, flow, verdict, TTL
// and a LAN port that takes everything.
func BenchmarkFromWAN(b *testing.B) {
	for _, flows := range []int{1, 1000, 100_000} {
		for _, batch := range []int{1, 32} {
			b.Run(fmt.Sprintf("flows=%d/batch=%d", flows, batch), func(b *testing.B) {
				r := benchRig(b)
				step := inboundStep(b, r, flows, batch)
				for range 2*flows/batch + 300 {
					step()
				}
				b.ReportAllocs()
				b.ResetTimer()
				for n := 0; n < b.N; n += batch {
					step()
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N), "ns/packet")
			})
		}
	}
}

// inboundStep returns a function that gives the next batch to fromWAN.
func inboundStep(tb testing.TB, r *rig, flows, batch int) func() {
	over := r.byID("hq.wan0~east.wan0")
	pkts := manyFlows(tb, remote4, host4, flows)
	for i := range pkts {
		pkts[i] = outer(over, pkts[i])
	}
	in := make([]tunnel.Inbound, batch)
	at, counter := 0, uint64(0)
	return func() {
		for i := range in {
			p := pkts[at]
			if at++; at == len(pkts) {
				at = 0
			}
			p[packet.OuterLen+8] = 64 // what the last round took away
			refix(p[packet.OuterLen:])
			in[i] = tunnel.Inbound{Bytes: p, Peer: over.peer, Counter: counter, Receiver: 1}
			counter++
		}
		r.fromWAN(over.uplink, in)
	}
}

// Packets of known flows cost no allocation.
func TestSteadyStateAllocates(t *testing.T) {
	r := benchRig(t)
	o := r.outbound("lan0")
	out := manyFlows(t, host4, other4, 100)
	bufs := make([]*packet.Buffer, 32)
	at := 0
	in := inboundStep(t, r, 100, 32)
	for name, step := range map[string]func(){
		"toWAN": func() {
			for i := range bufs {
				p := out[at%len(out)]
				at++
				bufs[i] = packet.Get(len(p))
				copy(bufs[i].Bytes, p)
			}
			r.toWAN(o, bufs)
		},
		"fromWAN": in,
	} {
		for range 20 {
			step()
		}
		// The race detector makes sync.Pool forget at random.
		if n := testing.AllocsPerRun(200, step); n > 0 && !raceEnabled {
			t.Errorf("%s: %v allocations a batch", name, n)
		}
	}
}

// BenchmarkTick is the second's work of an engine with 1,000 paths.
func BenchmarkTick(b *testing.B) {
	r := manyPaths(b)
	b.ReportAllocs()
	for b.Loop() {
		r.sample()
	}
}

// BenchmarkCarrier is an uplink with 500 paths that loses its carrier.
func BenchmarkCarrier(b *testing.B) {
	r := manyPaths(b)
	b.ReportAllocs()
	for up := false; b.Loop(); up = !up {
		r.SetCarrier("wan0", up)
	}
}

func manyPaths(tb testing.TB) *rig {
	names := []string{"hq"}
	for i := range 250 {
		names = append(names, fmt.Sprintf("s%d", i))
	}
	p := newPlan(names[:4]...)
	for i := 4; i <= 250; i++ {
		s := configs.Site{Name: names[i], Prefixes: []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i + 1)}), 16)}}
		s.Uplinks = append(s.Uplinks, p.uplink("wan0", fmt.Sprintf("198.18.0.%d:51820", i)), p.uplink("lte0", fmt.Sprintf("198.18.1.%d:51820", i)))
		p.sites = append(p.sites, s)
	}
	return newRig(tb, p, p.config(tb, "hq"))
}
