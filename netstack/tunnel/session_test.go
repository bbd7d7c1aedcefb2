package tunnel

import (
	"math/rand/v2"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
)

var nowhere = netip.MustParseAddrPort("192.0.2.99:51820")

// arrivals counts what a tunnel receives.
type arrivals struct {
	mu    sync.Mutex
	count int
	began time.Time
}

func (a *arrivals) FromTunnel(_ *Tunnel, pkts []Inbound) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.count == 0 {
		a.began = time.Now()
	}
	a.count += len(pkts)
}

func (a *arrivals) n() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.count
}

func (a *arrivals) first() time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.began
}

// ghost is a peer that does not exist.
func ghost(tb testing.TB, i byte) *side {
	_, public := newKey(tb)
	return &side{public: public, path: netip.AddrFrom4([4]byte{240, 0, 1, i})}
}

func TestDeadPeersHoldLittle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got arrivals
		a, b, _, _ := memoryPair(t, &arrivals{}, &got, nil)
		var dead []*Peer
		for i := range byte(8) {
			p, err := a.AddPeer(PeerConfig{PublicKey: ghost(t, i).public, PathAddress: ghost(t, i).path, Endpoint: nowhere})
			if err != nil {
				t.Fatal(err)
			}
			keep(p)
			dead = append(dead, p)
		}
		a.run(t)
		b.run(t)
		a.Send(a.peer, buffer(udpPacket(100, 0)), Rest)
		time.Sleep(6 * time.Second) // a lost first handshake is tried again after 5 s

		heap := heapNow()
		pkt := udpPacket(1300, 0)
		refused := 0
		for i := range 100_000 {
			if !a.Send(dead[i%len(dead)], buffer(pkt), Rest) {
				refused++
			}
		}
		synctest.Wait()
		if grown := heapNow() - heap; grown > 24<<20 {
			t.Errorf("the heap grew by %d MB", grown>>20)
		}
		var full, queued uint64
		for _, p := range dead {
			c := p.Counters()
			if c.TxPackets > stagedPackets {
				t.Errorf("%d packets left the queue without a session", c.TxPackets)
			}
			if c.Queued > DefaultPeerBytes/8 {
				t.Errorf("%d bytes queued", c.Queued)
			}
			full += c.QueueFull
			queued += uint64(c.Queued)
		}
		if full != uint64(refused) || refused < 90_000 || queued == 0 {
			t.Errorf("refused %d, counted %d, queued %d bytes", refused, full, queued)
		}
		// The living peer does not notice.
		before := got.n()
		for range 100 {
			a.Send(a.peer, buffer(pkt), Rest)
		}
		synctest.Wait()
		if got.n() != before+100 {
			t.Errorf("%d of 100 packets arrived at the living peer", got.n()-before)
		}
		time.Sleep(sessionWait + 2*keepInterval)
		var expired uint64
		for _, p := range dead {
			c := p.Counters()
			expired += c.NoSession
			if c.Queued != 0 {
				t.Errorf("%d bytes still queued", c.Queued)
			}
		}
		if want := uint64(100_000-refused) - 8*stagedPackets; expired != want {
			t.Errorf("expired %d, want %d", expired, want)
		}
	})
}

func heapNow() int {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}

// TestPeerComesAlive: the other side appears late, while there is traffic for
// it, or long after it.
func TestPeerComesAlive(t *testing.T) {
	for _, tc := range []struct {
		name        string
		talk, quiet time.Duration
		within      time.Duration
	}{
		{"at once", 0, 0, time.Second},
		{"with traffic", 60 * time.Second, 0, 7 * time.Second},
		{"with long traffic", 400 * time.Second, 0, 7 * time.Second},
		{"after silence", time.Second, 200 * time.Second, 7 * time.Second},
		{"after long silence", time.Second, 1000 * time.Second, 7 * time.Second},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var got arrivals
				a, b, _, _ := memoryPair(t, &arrivals{}, &got, nil)
				a.run(t)
				talk := func(d time.Duration) {
					for end := time.Now().Add(d); time.Now().Before(end); {
						a.Send(a.peer, buffer(udpPacket(100, 0)), Rest)
						time.Sleep(100 * time.Millisecond)
					}
				}
				talk(tc.talk)
				time.Sleep(tc.quiet)
				start := time.Now()
				b.run(t)
				synctest.Wait()
				talk(tc.within + time.Second)
				if got.n() == 0 || got.first().Sub(start) > tc.within {
					t.Fatalf("%d packets after %v", got.n(), got.first().Sub(start))
				}
				before := got.n()
				talk(time.Second)
				if got.n() < before+10 {
					t.Errorf("only %d packets in the last second", got.n()-before)
				}
			})
		})
	}
}

// TestSessionRunsOut: the other side vanishes under a live session; after its
// end the gate closes, and opens again when the other side is back.
func TestSessionRunsOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got arrivals
		a, b, ma, mb := memoryPair(t, &arrivals{}, &got, nil)
		a.run(t)
		b.run(t)
		talk := func(d time.Duration) {
			for end := time.Now().Add(d); time.Now().Before(end); {
				a.Send(a.peer, buffer(udpPacket(100, 0)), Rest)
				time.Sleep(10 * time.Millisecond)
			}
		}
		talk(time.Second)
		cut := func([]byte) bool { return false }
		ma.Filter(cut)
		mb.Filter(cut)
		talk(device.RejectAfterTime)
		before := a.peer.TxPackets()
		talk(2 * time.Minute)
		if n, most := a.peer.TxPackets()-before, uint64(a.queue.flight+stagedPackets); n > most {
			t.Errorf("%d packets entered the device without a session, want at most %d", n, most)
		}
		if c := a.peer.Counters(); c.NoSession == 0 {
			t.Error("nothing was dropped for want of a session")
		}
		ma.Filter(nil)
		mb.Filter(nil)
		n := got.n()
		talk(8 * time.Second)
		if got.n()-n < 100 {
			t.Errorf("%d packets arrived after the path healed", got.n()-n)
		}
	})
}

// TestRestart: a tunnel that starts anew reaches its peers at once if it asks
// for a handshake.
func TestRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got arrivals
		a, b, ma, mb := memoryPair(t, &arrivals{}, &arrivals{}, nil)
		a.run(t)
		b.run(t)
		a.Send(a.peer, buffer(udpPacket(100, 0)), Rest)
		time.Sleep(10 * time.Second)
		private := b.o.PrivateKey
		b.Close()
		b2 := newSide(t, "240.0.0.2", mb, &got, func(o *Options) { o.PrivateKey = private })
		b2.add(t, a, ma.Addr())
		b2.run(t)
		synctest.Wait()
		if err := b2.Handshake(b2.peer); err != nil {
			t.Fatal(err)
		}
		time.Sleep(100 * time.Millisecond)
		a.Send(a.peer, buffer(udpPacket(100, 0)), Rest)
		synctest.Wait()
		if got.n() != 1 {
			t.Error("the packet did not arrive 0.1 s after the restart")
		}
	})
}

// TestCollision lets two initiations cross on their way.
func TestCollision(t *testing.T) {
	for range 10 {
		synctest.Test(t, func(t *testing.T) {
			var got arrivals
			a, b, ma, mb := memoryPair(t, &got, &got, nil)
			if err := b.SetEndpoint(b.peer, ma.Addr()); err != nil {
				t.Fatal(err)
			}
			var mu sync.Mutex
			var held [][]byte // what waits to be injected
			to := map[*byte]*Memory{}
			hold := func(at *Memory) func([]byte) bool {
				return func(d []byte) bool {
					mu.Lock()
					defer mu.Unlock()
					d = slices.Clone(d)
					held, to[&d[0]] = append(held, d), at
					return false
				}
			}
			release := func() {
				mu.Lock()
				all := held
				held = nil
				mu.Unlock()
				for _, d := range all {
					to[&d[0]].Inject(d)
				}
				synctest.Wait()
			}
			ma.Filter(hold(mb))
			mb.Filter(hold(ma))
			a.run(t)
			b.run(t)
			synctest.Wait()
			a.Send(a.peer, buffer(udpPacket(100, 0)), Rest)
			b.Send(b.peer, buffer(udpPacket(100, 0)), Rest)
			synctest.Wait()
			release() // both initiations
			ma.Filter(nil)
			mb.Filter(nil)
			release() // the responses
			time.Sleep(100 * time.Millisecond)
			synctest.Wait()
			if got.n() != 2 {
				t.Errorf("%d of 2 packets arrived", got.n())
			}
			if n := a.Counters().Collided + b.Counters().Collided; n != 1 {
				t.Errorf("%d initiations were put back, want 1", n)
			}
		})
	}
}

// TestBothStart starts both sides within a moment of each other, over a wire
// with a delay: whatever crosses or races, both can send before the device
// would have tried again (5 s).
func TestBothStart(t *testing.T) {
	seed := rand.Uint64()
	t.Log("seed", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	for i := range 100 {
		delay := time.Duration(r.IntN(3)) * time.Millisecond
		first := time.Duration(r.IntN(3)) * time.Millisecond
		loss := i%3 == 0
		synctest.Test(t, func(t *testing.T) {
			var got arrivals
			a, b, ma, mb := memoryPair(t, &got, &got, nil)
			if err := b.SetEndpoint(b.peer, ma.Addr()); err != nil {
				t.Fatal(err)
			}
			wire := func(to *Memory) func([]byte) bool {
				var n atomic.Int32
				return func(d []byte) bool {
					if n.Add(1) == 1 && loss && to == ma {
						return false // the first of b's is lost
					}
					d = slices.Clone(d)
					go func() {
						time.Sleep(delay)
						to.Inject(d)
					}()
					return false
				}
			}
			ma.Filter(wire(mb))
			mb.Filter(wire(ma))
			a.run(t)
			b.run(t)
			for _, s := range []struct {
				*side
				at time.Duration
			}{{a, first}, {b, 1 * time.Millisecond}} {
				go func() {
					time.Sleep(s.at)
					s.Send(s.peer, buffer(udpPacket(100, 0)), Rest)
				}()
			}
			time.Sleep(1500 * time.Millisecond)
			synctest.Wait()
			if got.n() != 2 {
				t.Errorf("round %d: delay %v, first %v, loss %v: %d of 2 packets arrived\n%+v\n%+v", i, delay, first, loss, got.n(), a.Counters(), b.Counters())
			}
			for _, s := range []*side{a, b} {
				for range 3 {
					s.Send(s.peer, buffer(udpPacket(100, 0)), Rest)
				}
			}
			time.Sleep(100 * time.Millisecond)
			synctest.Wait()
			if got.n() != 8 {
				t.Errorf("round %d: %d of 8 packets arrived", i, got.n())
			}
		})
	}
}

func TestRoaming(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got arrivals
		a, b, ma, mb := memoryPair(t, &got, &arrivals{}, nil)
		a.run(t)
		b.run(t)
		a.Send(a.peer, buffer(udpPacket(100, 0)), Rest)
		time.Sleep(time.Second)
		moved := netip.MustParseAddrPort("198.51.100.7:4500")
		ma.Move(moved)
		b.Send(b.peer, buffer(udpPacket(100, 0)), Rest)
		synctest.Wait()
		if got.n() != 0 {
			t.Fatal("b knew a's new address before a spoke")
		}
		a.Send(a.peer, buffer(udpPacket(100, 0)), Rest)
		synctest.Wait()
		b.Send(b.peer, buffer(udpPacket(100, 0)), Rest)
		synctest.Wait()
		status, err := b.Status()
		if err != nil {
			t.Fatal(err)
		}
		s := status[a.public]
		if got.n() != 1 || s.Endpoint != moved || !s.Session || time.Since(s.LastHandshakeAt) > 2*time.Second || s.RxBytes == 0 || s.TxBytes == 0 {
			t.Errorf("%d packets arrived; %+v", got.n(), s)
		}
		if err := b.SetEndpoint(b.peer, nowhere); err != nil {
			t.Fatal(err)
		}
		if status, _ = b.Status(); status[a.public].Endpoint != nowhere {
			t.Errorf("endpoint %v", status[a.public].Endpoint)
		}
		_ = mb
	})
}

func TestKeepalive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, _, _ := memoryPair(t, &arrivals{}, &arrivals{}, nil)
		a.run(t)
		b.run(t)
		if err := a.SetKeepalive(a.peer, 5*time.Second); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		a.Send(a.peer, buffer(udpPacket(100, 0)), Rest)
		synctest.Wait()
		tally := b.peer.Counters().Tally
		if tally.Keepalives < 12 || tally.Keepalives > 14 || tally.Received != 1 || tally.Delivered != 1 {
			t.Errorf("%+v", tally)
		}
		if c := b.Counters(); c.Keepalives != tally.Keepalives || c.UnknownIndex != 0 {
			t.Errorf("%+v", c)
		}
	})
}

var _ conn.Bind = (*Memory)(nil)
