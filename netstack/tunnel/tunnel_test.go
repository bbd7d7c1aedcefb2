package tunnel

import (
	"bytes"
	"encoding/binary"
	"fmt"
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
		synctest.Wait()
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

func TestJunkIsCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got arrivals
		a, b, ma, mb := memoryPair(t, &arrivals{}, &got, nil)
		a.run(t)
		b.run(t)
		synctest.Wait()
		var last []byte
		ma.Filter(func(d []byte) bool { last = slices.Clone(d); return true })
		a.Send(a.peer, buffer(udpPacket(100, 0)), Rest)
		synctest.Wait()
		message := func(kind uint32, size int) []byte {
			b := make([]byte, size)
			if size >= 4 {
				binary.LittleEndian.PutUint32(b, kind)
			}
			return b
		}
		before := b.Counters()
		for _, d := range [][]byte{
			{1},
			message(4, 31), message(9, 64), message(4<<24, 64),
			message(1, 147), message(2, 93), message(3, 63),
			message(1, 148), message(2, 92), message(3, 64), message(4, 80),
			last, last, last, // replayed
		} {
			mb.Inject(d)
		}
		forged := slices.Clone(last)
		forged[len(forged)-1] ^= 1
		mb.Inject(forged)
		synctest.Wait()
		c := b.Counters()
		for _, x := range []struct {
			name      string
			got, want uint64
		}{
			{"short", c.Short, 2},
			{"unknown type", c.UnknownType, 2},
			{"bad size", c.BadSize, 3},
			{"bad MAC1", c.BadMAC1, 2},
			{"cookies", c.Cookies, 1},
			{"unknown index", c.UnknownIndex, 1},
			{"transport", c.Transport - before.Transport, 5},
			{"initiations", c.Initiations, 1},
			{"responses at a", a.Counters().Responses, 1},
		} {
			if x.got != x.want {
				t.Errorf("%s: %d, want %d", x.name, x.got, x.want)
			}
		}
		if tally := b.peer.Counters().Tally; tally != (Tally{Received: 5, Delivered: 1}) || got.n() != 1 {
			t.Errorf("%+v, %d packets arrived", tally, got.n())
		}
	})
}

func TestStamp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got [][]byte
		ma, mb := NewMemory(8)
		var stamped []string
		a := newSide(t, "240.0.0.1", ma, sink(func([]Inbound) {}), func(o *Options) {
			o.Stamp = func(p *Peer, pkt []byte, tx uint64) {
				stamped = append(stamped, fmt.Sprint(p.PathAddress(), len(pkt), tx))
				pkt[28] = byte(tx)
			}
		})
		b := newSide(t, "240.0.0.2", mb, sink(func(pkts []Inbound) {
			for _, p := range pkts {
				got = append(got, slices.Clone(p.Bytes))
			}
		}), nil)
		a.add(t, b, mb.Addr())
		b.add(t, a, netip.AddrPort{})
		for range 5 { // before the device is up: they wait, and the probe overtakes them
			a.Send(a.peer, buffer(udpPacket(100, 0)), Rest)
		}
		a.SendProbe(a.peer, buffer(udpPacket(50, 0)))
		b.run(t)
		synctest.Wait()
		a.run(t)
		synctest.Wait()
		a.SendProbe(a.peer, buffer(udpPacket(60, 0)))
		synctest.Wait()
		if want := []string{"240.0.0.2 78 1", "240.0.0.2 88 7"}; !slices.Equal(stamped, want) {
			t.Errorf("stamped %q, want %q", stamped, want)
		}
		if len(got) != 7 || got[0][20+28] != 1 || len(got[0]) != 20+78 || got[6][20+28] != 7 {
			t.Errorf("arrived: %x", got)
		}
	})
}

func TestMTU(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ma, mb := NewMemory(1)
		var sizes []int
		ma.Filter(func(d []byte) bool { sizes = append(sizes, len(d)); return true })
		a := newSide(t, "240.0.0.1", ma, &arrivals{}, nil)
		b := newSide(t, "240.0.0.2", mb, &arrivals{}, nil)
		a.add(t, b, mb.Addr())
		b.add(t, a, netip.AddrPort{})
		b.run(t)
		a.run(t)
		synctest.Wait()
		send := func(n int) int {
			a.Send(a.peer, buffer(udpPacket(n-28, 0)), Rest)
			synctest.Wait()
			return sizes[len(sizes)-1] - 32
		}
		// 1420 is no multiple of 16: a full packet is not padded.
		for _, inner := range []int{1400, 1390, 1380, 100} {
			want := min((inner+20+15)&^15, 1420)
			if got := send(inner); got != want {
				t.Errorf("%d bytes inside become %d, want %d", inner, got, want)
			}
		}
		a.SetMTU(1290)
		synctest.Wait()
		if got := send(1265); got != 1290 {
			t.Errorf("with MTU 1290: %d", got)
		}
		if a.MTU() != 1290 {
			t.Error(a.MTU())
		}
	})
}

func TestPeersComeAndGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got arrivals
		a, b, _, mb := memoryPair(t, &arrivals{}, &got, nil)
		a.run(t)
		b.run(t)
		synctest.Wait()
		for i := range 20 {
			a.Send(a.peer, buffer(udpPacket(100, 0)), Rest)
			time.Sleep(10 * time.Second)
			if got.n() != i+1 {
				t.Fatalf("round %d: %d packets arrived", i, got.n())
			}
			old := a.peer
			if err := a.RemovePeer(old); err != nil {
				t.Fatal(err)
			}
			if a.Send(old, buffer(udpPacket(100, 0)), Rest) {
				t.Error("a removed peer took a packet")
			}
			if a.RemovePeer(old) != ErrNoPeer || a.Handshake(old) != ErrNoPeer || a.SetEndpoint(old, nowhere) != ErrNoPeer {
				t.Error("a removed peer is still there")
			}
			a.add(t, b, mb.Addr())
		}
		if _, err := a.AddPeer(PeerConfig{PublicKey: b.public, PathAddress: b.path}); err == nil {
			t.Error("a peer was added twice")
		}
		if _, err := a.AddPeer(PeerConfig{PublicKey: a.public}); err == nil {
			t.Error("a tunnel is its own peer")
		}
		a.Close()
		if _, err := a.AddPeer(PeerConfig{}); err != ErrClosed {
			t.Error(err)
		}
		if _, err := a.Status(); err != ErrClosed {
			t.Error(err)
		}
		if a.Send(a.peer, buffer(udpPacket(100, 0)), Rest) {
			t.Error("a closed tunnel took a packet")
		}
	})
}

func TestOptionsAreChecked(t *testing.T) {
	ma, _ := NewMemory(1)
	key, _ := newKey(t)
	good := Options{PrivateKey: key, Bind: ma, Handler: &arrivals{}}
	for name, spoil := range map[string]func(*Options){
		"no bind":      func(o *Options) { o.Bind = nil },
		"no handler":   func(o *Options) { o.Handler = nil },
		"batch":        func(o *Options) { o.BatchSize = MaxBatchSize + 1 },
		"MTU":          func(o *Options) { o.MTU = 70000 },
		"path address": func(o *Options) { o.PathAddress = netip.IPv6Loopback() },
	} {
		o := good
		spoil(&o)
		if _, err := New(o); err == nil {
			t.Error(name)
		}
	}
	tun, err := New(good)
	if err != nil {
		t.Fatal(err)
	}
	defer tun.Close()
	for name, c := range map[string]PeerConfig{
		"path without own address": {PathAddress: netip.MustParseAddr("240.0.0.9")},
		"path over IPv6":           {PathAddress: netip.IPv6Loopback()},
	} {
		_, c.PublicKey = newKey(t)
		if _, err := tun.AddPeer(c); err == nil {
			t.Error(name)
		}
	}
}
