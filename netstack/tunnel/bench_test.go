//go:build linux

package tunnel

import (
	"net/netip"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/conn"

	"patronus/netstack/packet"
)

// window is how many packets may be on their way, in steps of stride.
const window, stride = 1536, 64

// warmUp packets are sent before the time is taken.
const warmUp = 50_000

// cpuTime is what the process has used, ns.
func cpuTime() int64 {
	var r unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &r); err != nil {
		panic(err)
	}
	return r.Utime.Nano() + r.Stime.Nano()
}

// benchmarkLoopback sends superpackets, as a LAN port reads them, through two
// tunnels over loopback. The time is that of a packet of 1400 bytes.
func benchmarkLoopback(b *testing.B, size, segments int, bind func() conn.Bind, batch int) {
	var got atomic.Int64
	tokens := make(chan struct{}, window/stride)
	ba, bb := bind(), bind()
	none := sink(func([]Inbound) {})
	with := func(o *Options) {
		o.BatchSize = batch
		if _, ours := ba.(*UDP); !ours {
			o.MTU = 2000 // buffers that upstream's Bind may join messages in
		}
	}
	x := newSide(b, "240.0.0.1", ba, none, with)
	y := newSide(b, "240.0.0.2", bb, sink(func(p []Inbound) {
		n := got.Add(int64(len(p)))
		for range n/stride - (n-int64(len(p)))/stride {
			<-tokens
		}
	}), with)
	x.run(b)
	y.run(b)
	y.add(b, x, netip.AddrPort{})
	var at netip.AddrPort
	waitFor(b, "port", func() bool {
		text, _ := y.dev.IpcGet()
		port, ok := listenPort(text)
		at = netip.AddrPortFrom(loop4, port)
		return ok
	})
	x.add(b, y, at)

	payload := segments * size
	template := udpPacket(payload, 0)
	send := func() bool {
		p := packet.Get(len(template))
		copy(p.Bytes, template)
		packet.Decode(p.Bytes, &p.Info)
		p.GSO = packet.GSO{NeedsCsum: true, CsumStart: 20, CsumOffset: 6}
		if segments > 1 {
			p.GSO.Size, p.GSO.HdrLen, p.GSO.Proto = uint16(size), 28, packet.UDP
		}
		return x.Send(x.peer, p, Rest)
	}
	sent := int64(0)
	push := func() {
		for range (sent+int64(segments))/stride - sent/stride {
			tokens <- struct{}{}
		}
		if !send() {
			b.Fatal("refused")
		}
		sent += int64(segments)
	}
	push()
	waitFor(b, "session", func() bool { return got.Load() == sent })
	for range warmUp / segments { // the device's buffers are new, and cold
		push()
	}
	waitFor(b, "the warm-up", func() bool { return got.Load() == sent })
	b.SetBytes(int64(size))
	b.ReportAllocs()
	before := cpuTime()
	b.ResetTimer()
	for first := sent; sent-first < int64(b.N); {
		push()
	}
	waitFor(b, "the last packets", func() bool { return got.Load() == sent })
	b.StopTimer()
	b.ReportMetric(float64(cpuTime()-before)/float64(b.N), "cpu-ns/op")
	if u, ok := ba.(*UDP); ok {
		c := u.Counters()
		b.ReportMetric(float64(c.SentDatagrams)/float64(max(1, c.SendCalls)), "pkt/send")
		d := bb.(*UDP).Counters()
		b.ReportMetric(float64(d.ReceivedDatagrams)/float64(max(1, d.ReceiveCalls)), "pkt/recv")
		b.ReportMetric(float64(d.Relaid)/float64(d.ReceivedDatagrams), "relaid")
	}
}

func BenchmarkLoopback(b *testing.B) {
	udp := func(batch int) func() conn.Bind {
		return func() conn.Bind { return newUDP(b, UDPOptions{Sources: []netip.Addr{loop4}, BatchSize: batch}) }
	}
	for _, tc := range []struct {
		name  string
		bind  func() conn.Bind
		batch int
	}{
		{"ours", udp(128), 128},
		{"ours256", udp(256), 256},
		{"std", conn.NewStdNetBind, 128},
	} {
		b.Run("bulk/"+tc.name, func(b *testing.B) { benchmarkLoopback(b, 1372, 44, tc.bind, tc.batch) })
		b.Run("small/"+tc.name, func(b *testing.B) { benchmarkLoopback(b, 172, 1, tc.bind, tc.batch) })
	}
}
