package tunnel

import (
	"bytes"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"patronus/netstack/packet"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// memoryPair runs two tunnels over a link in memory.
func memoryPair(tb testing.TB, ha, hb Handler, with func(*Options)) (a, b *side, ma, mb *Memory) {
	ma, mb = NewMemory(8)
	a = newSide(tb, "240.0.0.1", ma, ha, with)
	b = newSide(tb, "240.0.0.2", mb, hb, with)
	a.add(tb, b, mb.Addr())
	b.add(tb, a, netip.AddrPort{})
	return a, b, ma, mb
}

func TestPacketsArrive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got []Inbound
		a, b, _, _ := memoryPair(t, sink(func([]Inbound) {}), sink(func(pkts []Inbound) {
			for _, p := range pkts {
				p.Bytes = slices.Clone(p.Bytes)
				got = append(got, p)
			}
		}), nil)
		a.run(t)
		b.run(t)
		want := udpPacket(100, 7)
		for range 3 {
			if !a.Send(a.peer, buffer(want), Rest) {
				t.Fatal("refused")
			}
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if len(got) != 3 {
			t.Fatalf("%d packets arrived, want 3", len(got))
		}
		for i, in := range got {
			src, dst, _, inner, ok := packet.ParseOuter(in.Bytes)
			if !ok || netip.AddrFrom4(src) != a.path || netip.AddrFrom4(dst) != b.path || !bytes.Equal(inner, want) {
				t.Errorf("packet %d: %x", i, in.Bytes)
			}
			if in.Counter != uint64(i) || in.Receiver != got[0].Receiver || in.Peer != b.peer {
				t.Errorf("packet %d: counter %d, receiver %x, peer %v", i, in.Counter, in.Receiver, in.Peer)
			}
		}
		c := a.peer.Counters()
		if c.TxPackets != 3 || c.TxBytes != 3*uint64(len(want)) || c.Queued != 0 {
			t.Errorf("sender: %+v", c)
		}
		if c := b.peer.Counters(); c.Tally != (Tally{Received: 3, Delivered: 3}) {
			t.Errorf("receiver: %+v", c.Tally)
		}
	})
}
