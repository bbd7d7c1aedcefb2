package lan

import (
	"bytes"
	"errors"
	"net"
	"sync"
	"testing"
	"testing/synctest"

	"patronus/netstack/packet"
)

func TestCable(t *testing.T) {
	a, b := NewCable(CableOptions{Name: "lab", MTU: 1400, Queue: 4})
	if a.Name() != "lab" || b.MTU() != 1400 {
		t.Fatalf("name %q, mtu %d", a.Name(), b.MTU())
	}
	super := Out{Bytes: tcpPacket(segmentSpec{payload: 4000}), GSO: packet.GSO{Size: 1000, HdrLen: 40, Proto: packet.TCP}}
	pkts := []Out{
		outOf(tcpPacket(segmentSpec{payload: 100})),
		super,
		{Bytes: tcpPacket(segmentSpec{payload: 1361})},                                          // oversize
		{Bytes: tcpPacket(segmentSpec{payload: 4000}), GSO: packet.GSO{Size: 1400, HdrLen: 40}}, // oversize segments
		outOf(udpPacket(segmentSpec{v6: true, payload: 5})),
		outOf(tcpPacket(segmentSpec{payload: 1})),
		outOf(tcpPacket(segmentSpec{payload: 2})), // the queue is full
	}
	if err := a.Write(pkts); err != nil {
		t.Fatal(err)
	}
	bufs := make([]*packet.Buffer, 3)
	var got []*packet.Buffer
	for len(got) < 4 {
		n, err := b.Read(bufs)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, bufs[:n]...)
	}
	for i, want := range []Out{pkts[0], pkts[1], pkts[4], pkts[5]} {
		if !bytes.Equal(got[i].Bytes, want.Bytes) || got[i].GSO != want.GSO {
			t.Errorf("packet %d differs", i)
		}
		got[i].Release()
	}
	ca, cb := a.Counters(), b.Counters()
	if ca.TxPackets != 7 || ca.TxMerged != 1 || ca.Drops[DropOversize] != 2 || ca.Drops[DropQueueFull] != 1 {
		t.Errorf("sender: %+v", ca)
	}
	if cb.RxPackets != 7 || cb.RxBytes != ca.TxBytes || cb.RxMerged != 1 {
		t.Errorf("receiver: %+v", cb)
	}
}

func TestCableCloseUnblocksRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := NewCable(CableOptions{})
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := b.Read(make([]*packet.Buffer, 1)); !errors.Is(err, net.ErrClosed) {
				t.Errorf("read: %v", err)
			}
		})
		synctest.Wait()
		for range 2 {
			if err := b.Close(); err != nil {
				t.Error(err)
			}
		}
		wg.Wait()
		p := []Out{outOf(tcpPacket(segmentSpec{payload: 1}))}
		if err := b.Write(p); !errors.Is(err, net.ErrClosed) {
			t.Errorf("write to a closed end: %v", err)
		}
		if err := a.Write(p); err != nil {
			t.Errorf("write to the other end: %v", err)
		}
		if c := a.Counters(); c.Drops[DropLinkDown] != 1 {
			t.Errorf("%+v", c)
		}
		if n, err := a.Read(nil); n != 0 || err != nil {
			t.Errorf("read into nothing: %d, %v", n, err)
		}
	})
}

func TestCableAllocates(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector makes sync.Pool forget")
	}
	a, b := NewCable(CableOptions{})
	p := []Out{outOf(tcpPacket(segmentSpec{payload: 1000}))}
	bufs := make([]*packet.Buffer, 1)
	n := testing.AllocsPerRun(1000, func() {
		_ = a.Write(p)
		_, _ = b.Read(bufs)
		bufs[0].Release()
	})
	if n != 0 {
		t.Errorf("%v allocations a packet", n)
	}
}

func BenchmarkCable(b *testing.B) {
	x, y := NewCable(CableOptions{})
	var pkts []Out
	for range 64 {
		pkts = append(pkts, outOf(tcpPacket(segmentSpec{payload: 1400})))
	}
	bufs := make([]*packet.Buffer, len(pkts))
	b.ReportAllocs()
	b.SetBytes(1440)
	for i := 0; i < b.N; i += len(pkts) {
		_ = x.Write(pkts)
		n, _ := y.Read(bufs)
		for _, p := range bufs[:n] {
			p.Release()
		}
	}
}
