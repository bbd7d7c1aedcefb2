package lan

import (
	"fmt"
	"testing"

	"patronus/netstack/packet"
)

// Writing allocates nothing, merged or not, on a real device.
func TestWriteAllocates(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector makes sync.Pool forget")
	}
	ns := newNamespaces(t, "a", "b")
	tun := openTUN(t, ns[0], 0)
	s := newStation(t, gates4[0])
	eth := openPacket(t, ns[1], s, PacketOptions{Interface: lanHost(ns[0], ns[1], 0)})
	s.heard(hosts4[0], [6]byte{2, 0, 0, 0, 0, 1})
	var merged, single []Out
	for i := range 40 {
		single = append(single, outOf(udpPacket(segmentSpec{payload: 100 + i, srcPort: uint16(5000 + i)})))
	}
	merged = train(segmentSpec{payload: 1300}, 40, tcpPacket)
	for _, pkts := range [][]Out{merged, single} {
		for i := range pkts {
			pkts[i].NextHop = packet.AddrFrom(hosts4[0])
		}
	}
	for name, port := range map[string]Port{"tun": tun, "packet": eth} {
		for i, pkts := range [][]Out{merged, single} {
			t.Run(fmt.Sprintf("%s/%d", name, i), func(t *testing.T) {
				before := port.Counters()
				n := testing.AllocsPerRun(200, func() {
					if err := port.Write(pkts); err != nil {
						t.Fatal(err)
					}
				})
				if n >= 1 {
					t.Errorf("%v allocations a batch", n)
				}
				after := port.Counters()
				dropped := uint64(0)
				for _, d := range after.Drops {
					dropped += d
				}
				if after.TxPackets-before.TxPackets+dropped != 201*40 {
					t.Errorf("sent %d, dropped %v", after.TxPackets-before.TxPackets, after.Drops)
				}
				if i == 0 && after.TxMerged == before.TxMerged {
					t.Error("nothing was merged")
				}
			})
		}
	}
}

// A kernel without UDP superpackets gets the datagrams one by one.
func TestUDPSuperpacketsAreCut(t *testing.T) {
	ns := newNamespaces(t, "a", "b")
	a, b := openTUN(t, ns[0], 0), openTUN(t, ns[1], 1)
	b.uso = false
	bridge(t, a, b, false)
	datagrams(t, ns[0], ns[1], testNets4[1].Addr())
	datagrams(t, ns[0], ns[1], testNets6[1].Addr())
	if c := b.Counters(); c.TxMerged != 0 || a.Counters().RxMerged == 0 {
		t.Errorf("%+v", c)
	}
}

// A socket that refuses merged packets gets the members of the run.
func TestRefusedRunsAreSentAgain(t *testing.T) {
	ns := newNamespaces(t, "a", "b")
	s := newStation(t, gates4[0])
	p := openPacket(t, ns[1], s, PacketOptions{Interface: lanHost(ns[0], ns[1], 0)})
	s.heard(hosts4[0], [6]byte{2, 0, 0, 0, 0, 1})
	w := newPacketWriter(p)
	pkts := append(train(segmentSpec{payload: 700}, 10, udpPacket), train(segmentSpec{payload: 700}, 5, tcpPacket)...)
	w.begin(pkts)
	w.plan(pkts, true, true)
	for i := range w.runs {
		w.merged(&w.runs[i], &[6]byte{2, 0, 0, 0, 0, 1})
		w.heads[i][0], w.heads[i][1] = 1, 99 // a kind that no kernel knows
	}
	if err := w.end(); err != nil {
		t.Fatal(err)
	}
	c := p.Counters()
	if c.TxPackets != 15 || c.TxMerged != 0 || c.Drops != [NumDrops]uint64{} || p.uso.Load() || p.tso.Load() {
		t.Errorf("%+v, uso %v, tso %v", c, p.uso.Load(), p.tso.Load())
	}
	if err := p.Write(pkts); err != nil {
		t.Fatal(err)
	}
	if c := p.Counters(); c.TxMerged != 0 {
		t.Errorf("merged again: %+v", c)
	}
}
