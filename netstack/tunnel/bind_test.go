//go:build linux

package tunnel

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun/tuntest"
)

// endpointAt parses.
func endpointAt(tb testing.TB, u conn.Bind, at netip.AddrPort) conn.Endpoint {
	tb.Helper()
	e, err := u.ParseEndpoint(at.String())
	if err != nil {
		tb.Fatal(err)
	}
	return e
}

// gatherer receives all datagrams of a ReceiveFunc until it ends.
type gatherer struct {
	mu   sync.Mutex
	got  [][]byte
	from []conn.Endpoint
	done chan error
}

func gather(fn conn.ReceiveFunc, batch int) *gatherer {
	g := &gatherer{done: make(chan error, 1)}
	go func() {
		bufs, sizes := newBatch(batch)
		eps := make([]conn.Endpoint, batch)
		for {
			n, err := fn(bufs, sizes, eps)
			if err != nil {
				g.done <- err
				return
			}
			g.mu.Lock()
			for i := range n {
				if sizes[i] > 0 {
					g.got = append(g.got, slices.Clone(bufs[i][:sizes[i]]))
					g.from = append(g.from, eps[i])
				}
			}
			g.mu.Unlock()
		}
	}()
	return g
}

func (g *gatherer) count() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.got)
}

// TestDatagramsKeepOrder sends runs of all shapes between two Binds.
func TestDatagramsKeepOrder(t *testing.T) {
	for _, local := range []netip.Addr{loop4, loop6} {
		for _, batch := range []int{1, 7, 64, 128, 256} {
			t.Run(fmt.Sprint(local, " batch ", batch), func(t *testing.T) {
				o := UDPOptions{Sources: []netip.Addr{local}, BatchSize: batch}
				a, b := newUDP(t, o), newUDP(t, o)
				if _, _, err := a.Open(0); err != nil {
					t.Fatal(err)
				}
				fns, port, err := b.Open(0)
				if err != nil || len(fns) != 1 {
					t.Fatal(len(fns), err)
				}
				g := gather(fns[0], batch)
				to := endpointAt(t, a, netip.AddrPortFrom(local, port))
				sent := 0
				for i, shape := range [][]int{
					{100},
					{1400, 1400, 1400, 700},
					{200, 200, 1400, 1400, 32},
					{32, 1, 1400},
					{9000, 9000, 9000, 9000, 9000, 9000, 9000, 9000, 9000, 5},
					{65000},
					{1456, 1456, 1456},
					{1456, 1456},
				} {
					if len(shape) > batch {
						shape = shape[:batch]
					}
					var bufs [][]byte
					for range 3 {
						for _, n := range shape {
							d := make([]byte, n)
							for k := range d {
								d[k] = byte(i*7 + k)
							}
							d[0] = byte(sent)
							bufs = append(bufs, d)
							sent++
						}
					}
					for chunk := range slices.Chunk(bufs, batch) {
						if err := a.Send(chunk, to); err != nil {
							t.Fatal(err)
						}
					}
					waitFor(t, "datagrams", func() bool { return g.count() == sent })
				}
				for i, d := range g.got {
					if d[0] != byte(i) {
						t.Fatalf("datagram %d is number %d", i, d[0])
					}
					for k := 2; k < len(d); k++ {
						if d[k] != d[k-1]+1 {
							t.Fatalf("datagram %d, %d bytes, is damaged at %d", i, len(d), k)
						}
					}
					if g.from[i] != g.from[0] {
						t.Fatal("the endpoint is not the same object")
					}
				}
				if err := errors.Join(a.Close(), b.Close(), b.Close()); err != nil {
					t.Error(err)
				}
				if err := <-g.done; !errors.Is(err, net.ErrClosed) {
					t.Error(err)
				}
				// A Bind opens again, on the same port.
				fns, again, err := b.Open(port)
				if err != nil || again != port {
					t.Fatal(again, err)
				}
				g = gather(fns[0], batch)
				b.Close()
				<-g.done
			})
		}
	}
}

func TestSendErrorsAreCounted(t *testing.T) {
	u := newUDP(t, UDPOptions{Sources: []netip.Addr{loop4}})
	to := endpointAt(t, u, netip.MustParseAddrPort("127.0.0.1:9"))
	if err := u.Send([][]byte{make([]byte, 10)}, to); err == nil {
		t.Error("a closed Bind sends")
	}
	fns, _, err := u.Open(0)
	if err != nil {
		t.Fatal(err)
	}
	g := gather(fns[0], 128)
	big := make([]byte, 65507+1)
	if err := u.Send([][]byte{big, make([]byte, 100), big}, to); !errors.Is(err, unix.EMSGSIZE) {
		t.Error(err)
	}
	// Bound to loopback, the rest of the world is unreachable.
	if err := u.Send([][]byte{make([]byte, 100), make([]byte, 100)}, endpointAt(t, u, netip.MustParseAddrPort("203.0.113.1:9"))); err == nil {
		t.Error("sent from loopback to elsewhere")
	}
	if err := u.Send([][]byte{make([]byte, 100)}, endpointAt(t, u, netip.MustParseAddrPort("[::1]:9"))); err == nil {
		t.Error("sent to IPv6")
	}
	c := u.Counters()
	if c.TooBig != 2 || c.SentDatagrams != 1 || c.NoSocket != 2 || c.Unreachable+c.OtherSend != 2 {
		t.Errorf("%+v", c)
	}
	u.Close()
	<-g.done
}

// TestBindDoesNotAllocate sends and receives batches between two sockets.
func TestBindDoesNotAllocate(t *testing.T) {
	o := UDPOptions{Sources: []netip.Addr{loop4}}
	a, b := newUDP(t, o), newUDP(t, o)
	if _, _, err := a.Open(0); err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	fns, port, err := b.Open(0)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	to := endpointAt(t, a, netip.AddrPortFrom(loop4, port))
	out := make([][]byte, 44)
	for i := range out {
		out[i] = make([]byte, 1456)
	}
	bufs, sizes := newBatch(128)
	eps := make([]conn.Endpoint, 128)
	round := func() {
		if err := a.Send(out, to); err != nil {
			t.Fatal(err)
		}
		for got := 0; got < len(out); {
			n, err := fns[0](bufs, sizes, eps)
			if err != nil {
				t.Fatal(err)
			}
			for _, size := range sizes[:n] {
				if size == 1456 {
					got++
				}
			}
		}
	}
	for range 10 {
		round()
	}
	if n := testing.AllocsPerRun(200, round); n >= 1 && !raceEnabled {
		t.Errorf("%v allocations for 44 datagrams", n)
	}
	if c := b.Counters(); c.Relaid > 2*44 {
		t.Errorf("%d of %d datagrams were relaid", c.Relaid, c.ReceivedDatagrams)
	}
}

// absent is an Opener whose interface comes late.
type absent struct {
	SystemOpener
	tries atomic.Int32
	until int32
}

func (o *absent) Open(network string, local netip.AddrPort, iface string) (*net.UDPConn, error) {
	if o.tries.Add(1) <= o.until {
		return nil, os.NewSyscallError("bind", unix.ENODEV)
	}
	return o.SystemOpener.Open(network, local, iface)
}

// TestInterfaceComesAndGoes: the Bind opens without its interface, gets a
// socket when that appears, and another one when the first is lost.
func TestInterfaceComesAndGoes(t *testing.T) {
	o := &absent{until: 2}
	u := newUDP(t, UDPOptions{Sources: []netip.Addr{loop4}, Interface: "lo", Opener: o})
	fns, _, err := u.Open(0)
	if err != nil {
		t.Fatal(err)
	}
	g := gather(fns[0], 128)
	at := u.addr(t, loop4)
	p := u.v4.Load()
	first := p.sock.Load()
	if first.stale() {
		t.Error("lo is stale")
	}
	c, err := net.Dial("udp4", at.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	waitFor(t, "a datagram", func() bool { _, _ = c.Write([]byte("hello")); return g.count() > 0 })
	p.drop(first) // as if the interface had gone
	waitFor(t, "a new socket", func() bool { s := p.sock.Load(); return s != nil && s != first })
	c2, err := net.Dial("udp4", u.addr(t, loop4).String())
	if err != nil {
		t.Fatal(err)
	}
	defer c2.Close()
	n := g.count()
	waitFor(t, "a datagram", func() bool { _, _ = c2.Write([]byte("hello")); return g.count() > n })
	if c := u.Counters(); c.Reopened < 2 {
		t.Errorf("%+v", c)
	}
	u.Close()
	<-g.done
	if _, _, err := newUDP(t, UDPOptions{Sources: []netip.Addr{loop4}, Opener: refuses{}}).Open(0); !errors.Is(err, unix.EACCES) {
		t.Errorf("a refused socket: %v", err)
	}
}

type refuses struct{}

func (refuses) Open(string, netip.AddrPort, string) (*net.UDPConn, error) {
	return nil, os.NewSyscallError("bind", unix.EACCES)
}

func TestBothFamiliesOnOnePort(t *testing.T) {
	u := newUDP(t, UDPOptions{})
	fns, port, err := u.Open(0)
	if err != nil {
		t.Fatal(err)
	}
	var gs []*gatherer
	for _, fn := range fns {
		gs = append(gs, gather(fn, 128))
	}
	if len(fns) != 2 || u.addr(t, loop4).Port() != port || u.addr(t, loop6).Port() != port {
		t.Errorf("%d functions, port %d", len(fns), port)
	}
	if _, _, err := u.Open(0); !errors.Is(err, conn.ErrBindAlreadyOpen) {
		t.Error(err)
	}
	u.Close()
	for _, g := range gs {
		<-g.done
	}
	for _, bad := range [][]netip.Addr{{loop4, loop4}, {{}}, {loop6, netip.IPv6Unspecified()}} {
		if _, err := NewUDP(UDPOptions{Sources: bad}); err == nil {
			t.Error(bad)
		}
	}
}

// TestOverflowIsCounted fills a small receive buffer.
func TestOverflowIsCounted(t *testing.T) {
	u := newUDP(t, UDPOptions{Sources: []netip.Addr{loop4}, SocketBuffer: 4096, NoOffload: true})
	fns, port, err := u.Open(0)
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("udp4", netip.AddrPortFrom(loop4, port).String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	const sent = 500
	for range sent {
		if _, err := c.Write(make([]byte, 1000)); err != nil {
			t.Fatal(err)
		}
	}
	g := gather(fns[0], 128)
	// The counter comes with the datagrams that were queued after a drop.
	more := 0
	waitFor(t, "all datagrams", func() bool {
		_, _ = c.Write(make([]byte, 1000))
		more++
		return u.Counters().Dropped > 0
	})
	if d := u.Counters().Dropped; d < sent-100 || d > uint64(sent+more) {
		t.Errorf("%d dropped of %d", d, sent)
	}
	u.Close()
	<-g.done
}

// TestStockPeer talks to upstream's device over upstream's Bind, with plain
// packets.
func TestStockPeer(t *testing.T) {
	var got gatherer
	u := newUDP(t, UDPOptions{Sources: []netip.Addr{loop4}})
	a := newSide(t, "240.0.0.1", u, sink(func(pkts []Inbound) {
		got.mu.Lock()
		defer got.mu.Unlock()
		for _, p := range pkts {
			got.got = append(got.got, slices.Clone(p.Bytes))
		}
	}), nil)
	a.run(t)
	at := u.addr(t, loop4)

	private, public := newKey(t)
	ch := tuntest.NewChannelTUN()
	stock := device.NewDevice(ch.TUN(), conn.NewStdNetBind(), device.NewLogger(device.LogLevelSilent, ""))
	defer stock.Close()
	if err := stock.IpcSet(fmt.Sprintf("private_key=%x\npublic_key=%x\nallowed_ip=10.2.0.0/24\nendpoint=%s\n", private, a.public[:], at)); err != nil {
		t.Fatal(err)
	}
	if err := stock.Up(); err != nil {
		t.Fatal(err)
	}
	p, err := a.AddPeer(PeerConfig{PublicKey: public, AllowedIPs: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/24")}})
	if err != nil {
		t.Fatal(err)
	}
	// udpPacket is from 10.1.0.1 to 10.2.0.1.
	for i := range 10 {
		ch.Outbound <- udpPacket(200, uint64(i))
	}
	waitFor(t, "packets of the stock peer", func() bool { return got.count() == 10 })
	for i, b := range got.got {
		if !slices.Equal(b, udpPacket(200, uint64(i))) {
			t.Errorf("packet %d: %x", i, b)
		}
	}
	// Not for the peer's prefix:
	if a.Send(p, buffer(udpPacket(100, 0)), Rest) || p.Counters().Misrouted != 1 {
		t.Errorf("%+v", p.Counters())
	}
	back := udpPacket(300, 1)
	copy(back[12:16], []byte{10, 2, 0, 1})
	copy(back[16:20], []byte{10, 1, 0, 1})
	if !a.Send(p, buffer(back), Rest) {
		t.Fatal("refused")
	}
	select {
	case b := <-ch.Inbound:
		if !slices.Equal(b, back) {
			t.Errorf("%x", b)
		}
	case <-time.After(20 * time.Second):
		t.Error("nothing arrived at the stock peer")
	}
}

// TestCloseUnderLoad closes both ends while packets are everywhere.
func TestCloseUnderLoad(t *testing.T) {
	for round := range 5 {
		var got atomic.Int64
		h := sink(func(p []Inbound) { got.Add(int64(len(p))) })
		a, b, _, _ := udpPair(t, loop4, UDPOptions{}, h, h, nil)
		stop := make(chan struct{})
		var wg sync.WaitGroup
		for _, s := range []*side{a, b} {
			for range 2 {
				wg.Go(func() {
					for i := 0; ; i++ {
						select {
						case <-stop:
							return
						default:
						}
						s.Send(s.peer, buffer(udpPacket(1+i%1300, 0)), uint8(i)%bands)
						waitFor(t, "room", func() bool { return s.closed.Load() || s.peer.Counters().Queued < 200_000 })
					}
				})
			}
		}
		waitFor(t, "traffic", func() bool { return got.Load() > int64(500*(round+1)) })
		wg.Go(func() { a.Close() })
		wg.Go(func() {
			if err := b.RemovePeer(b.peer); err != nil {
				t.Error(err)
			}
			b.Close()
		})
		waitFor(t, "close", func() bool { return a.closed.Load() && b.closed.Load() })
		<-a.done
		<-b.done
		close(stop)
		wg.Wait()
		if n := a.queue.bytes + b.queue.bytes; n != 0 {
			t.Errorf("%d bytes are still queued", n)
		}
	}
}
