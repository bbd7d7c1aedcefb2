package vnet

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.zx2c4.com/wireguard/conn"
)

func addr(s string) netip.Addr         { return netip.MustParseAddr(s) }
func addrPort(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

// sock is a Bind whose arrivals are read by two goroutines, as a device does.
type sock struct {
	*Bind
	port uint16
	in   chan got
}

type got struct {
	payload string
	from    *Endpoint
	at      time.Time
}

func listen(t *testing.T, n *Network, nic *NIC, port uint16) *sock {
	t.Helper()
	b := n.Bind(nic, port)
	fns, actual, err := b.Open(0)
	if err != nil {
		t.Fatal(err)
	}
	s := &sock{Bind: b, port: actual, in: make(chan got, 4*socketQueue)}
	for _, fn := range fns {
		go func() {
			bufs, sizes, eps := [][]byte{make([]byte, 2048)}, make([]int, 1), make([]conn.Endpoint, 1)
			for {
				k, err := fn(bufs, sizes, eps)
				if err != nil {
					return
				}
				for i := range k {
					s.in <- got{string(bufs[i][:sizes[i]]), eps[i].(*Endpoint), time.Now()}
				}
			}
		}()
	}
	t.Cleanup(func() { b.Close() })
	return s
}

func (s *sock) send(t *testing.T, to netip.AddrPort, payloads ...string) {
	t.Helper()
	for _, p := range payloads {
		if err := s.Send([][]byte{[]byte(p)}, NewEndpoint(to)); err != nil {
			t.Fatalf("send to %s: %v", to, err)
		}
	}
}

// drain waits d and returns what has arrived by then.
func (s *sock) drain(d time.Duration) (all []got) {
	time.Sleep(d)
	synctest.Wait()
	for {
		select {
		case g := <-s.in:
			all = append(all, g)
		default:
			return all
		}
	}
}

func payloads(all []got) string {
	var s []string
	for _, g := range all {
		s = append(s, g.payload)
	}
	return strings.Join(s, " ")
}

// pair is two NICs in one cloud, each with both families.
type pairNet struct {
	*Network
	inet *Cloud
	a, b *NIC
}

func newPair(t *testing.T) pairNet {
	n := New(Options{Seed: 7})
	t.Cleanup(n.Close)
	OnFailure(t, n)
	c := n.Cloud("inet")
	return pairNet{
		n, c,
		n.Node("hq").Attach(c, "wan0", addr("192.0.2.1"), addr("2001:db8::1")),
		n.Node("east").Attach(c, "lte0", addr("198.51.100.1"), addr("2001:db8::2")),
	}
}

func TestNetworkCarries(t *testing.T) {
	for _, to := range []string{"198.51.100.1:51820", "[2001:db8::2]:51820"} {
		t.Run(to, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newPair(t)
				n.a.Link().Set(Impairment{Delay: 10 * time.Millisecond})
				n.b.Link().Set(Impairment{Delay: 5 * time.Millisecond})
				n.inet.Between(n.b, n.a).Set(Impairment{Delay: 20 * time.Millisecond})
				a, b := listen(t, n.Network, n.a, 1000), listen(t, n.Network, n.b, 51820)
				start := time.Now()
				a.send(t, addrPort(to), "one", "two")
				all := b.drain(time.Second)
				if payloads(all) != "one two" {
					t.Fatalf("got %v", all)
				}
				if d := all[0].at.Sub(start); d != 35*time.Millisecond {
					t.Errorf("one way takes %v", d)
				}
				if want := netip.AddrPortFrom(n.a.Addrs()[b2i(to[0] == '[')], 1000); all[0].from.Dst() != want {
					t.Errorf("from %s, want %s", all[0].from.Dst(), want)
				}
				// The learned endpoint leads back.
				if err := b.Send([][]byte{[]byte("back")}, all[0].from); err != nil {
					t.Fatal(err)
				}
				if back := a.drain(time.Second); payloads(back) != "back" || back[0].from.Dst() != addrPort(to) {
					t.Errorf("got %v", back)
				}
				if o := n.Outcomes(); o[Delivered] != 3 || len(o) != 1 {
					t.Errorf("outcomes %v", o)
				}
			})
		})
	}
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

func TestNetworkOutcomes(t *testing.T) {
	to := addrPort("198.51.100.1:51820")
	for _, c := range []struct {
		want  Outcome
		setup func(n pairNet)
		to    netip.AddrPort
	}{
		{Delivered, func(pairNet) {}, to},
		{NoSocket, func(pairNet) {}, addrPort("198.51.100.1:9")},
		{NoRoute, func(pairNet) {}, addrPort("203.0.113.1:51820")},
		{NoCarrier, func(n pairNet) { n.a.SetCarrier(false) }, to},
		{NoCarrier, func(n pairNet) { n.b.SetCarrier(false) }, to},
		{LinkDown, func(n pairNet) { n.a.Link().Break() }, to},
		{LinkDown, func(n pairNet) { n.inet.Between(n.a, n.b).Out.SetDown(true) }, to},
		{Delivered, func(n pairNet) { n.inet.Between(n.a, n.b).In.SetDown(true) }, to},
		{LostOnLink, func(n pairNet) { n.b.Link().In.Set(Impairment{Loss: 1}) }, to},
		{LinkTooBig, func(n pairNet) { n.b.Link().In.Set(Impairment{MTU: 28}) }, to},
		{RuleDropped, func(n pairNet) { n.AddRule(nil, Rule{DstPort: 51820}) }, to},
		{NoRoute, func(n pairNet) { n.b.SetAddrs(addr("198.51.100.9")) }, to},
	} {
		t.Run(c.want.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newPair(t)
				a, b := listen(t, n.Network, n.a, 0), listen(t, n.Network, n.b, 51820)
				c.setup(n)
				a.send(t, c.to, "x")
				if all := b.drain(time.Second); (len(all) == 1) != (c.want == Delivered) {
					t.Errorf("got %v", all)
				}
				if o := n.Outcomes(); o[c.want] != 1 || len(o) != 1 {
					t.Errorf("outcomes %v", o)
				}
			})
		})
	}
}

func TestRoaming(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newPair(t)
		n.a.Link().Set(Impairment{Delay: 10 * time.Millisecond})
		a, b := listen(t, n.Network, n.a, 1000), listen(t, n.Network, n.b, 2000)
		a.send(t, addrPort("198.51.100.1:2000"), "before")
		first := b.drain(time.Second)
		// On the way to the old address when it goes.
		b.send(t, addrPort("192.0.2.1:1000"), "late")
		n.a.SetAddrs(addr("203.0.113.7"))
		a.send(t, addrPort("198.51.100.1:2000"), "after")
		all := b.drain(time.Second)
		if payloads(all) != "after" || all[0].from.Dst() != addrPort("203.0.113.7:1000") {
			t.Fatalf("got %v", all)
		}
		if lost := a.drain(0); len(lost) != 0 {
			t.Errorf("the old address still works: %v", lost)
		}
		// The remembered source is gone; the answer goes out by the new one.
		if err := a.Send([][]byte{[]byte("sticky")}, &Endpoint{dst: addrPort("198.51.100.1:2000"), src: addr("192.0.2.1")}); err != nil {
			t.Fatal(err)
		}
		if all := b.drain(time.Second); payloads(all) != "sticky" || all[0].from.SrcIP() != first[0].from.SrcIP() {
			t.Errorf("got %v", all)
		}
		if err := a.Send([][]byte{{1}}, NewEndpoint(addrPort("[2001:db8::2]:2000"))); !errors.Is(err, syscall.ENETUNREACH) {
			t.Errorf("no IPv6 address: %v", err)
		}
	})
}

func TestCarrierWatchers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newPair(t)
		var seen []bool
		n.a.OnCarrier(func(up bool) { seen = append(seen, up); _ = n.a.Addrs() }) // may call back
		for _, up := range []bool{true, false, false, true, false} {
			n.a.SetCarrier(up)
		}
		if got := fmt.Sprint(seen); got != "[false true false]" {
			t.Errorf("watcher saw %s", got)
		}
	})
}

func TestRules(t *testing.T) {
	wg := func(typ byte, size int) string { return string(typ) + "\x00\x00\x00" + strings.Repeat("x", size-4) }
	initiation, response, transport, keepalive := wg(1, 148), wg(2, 92), wg(4, 100), wg(4, 32)
	send := []string{initiation, response, transport, keepalive, initiation, response, response}
	for _, c := range []struct {
		name        string
		rule        Rule
		hits, fired uint64
		arrive      int
	}{
		{"second response only", Rule{Message: Response, Occurrences: []int{2}, Direction: Outgoing}, 3, 1, 6},
		{"all initiations", Rule{Message: Initiation, Direction: Incoming}, 2, 2, 5},
		{"transport includes keepalives", Rule{Message: Transport, Direction: Outgoing}, 2, 2, 5},
		{"keepalives", Rule{Message: Keepalive, Direction: Outgoing}, 1, 1, 6},
		{"size", Rule{MinSize: 93, MaxSize: 147, Direction: Outgoing}, 1, 1, 6},
		{"family", Rule{Family: 6}, 0, 0, 7},
		{"port", Rule{SrcPort: 1000, DstPort: 2000, Direction: Outgoing}, 7, 7, 0},
		{"other port", Rule{SrcPort: 2000}, 0, 0, 7},
		{"match", Rule{Match: func(_, _ netip.AddrPort, b []byte) bool { return b[0] == 4 }, Direction: Outgoing}, 2, 2, 5},
		{"count", Rule{Action: Count, Direction: Outgoing}, 7, 7, 7},
		{"copy", Rule{Action: Copy, Message: Response, Direction: Outgoing}, 3, 3, 10},
		{"corrupt", Rule{Action: Corrupt, Direction: Outgoing}, 7, 7, 7},
		{"both ways counts twice", Rule{Action: Count}, 14, 14, 7},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newPair(t)
				a, b := listen(t, n.Network, n.a, 1000), listen(t, n.Network, n.b, 2000)
				trap := n.AddRule(nil, c.rule)
				a.send(t, addrPort("198.51.100.1:2000"), send...)
				all := b.drain(time.Second)
				if len(all) != c.arrive || trap.Hits() != c.hits || trap.Fired() != c.fired {
					t.Errorf("%d arrived, %d hits, %d fired", len(all), trap.Hits(), trap.Fired())
				}
				if whole := len(all) > 0 && all[0].payload == initiation; whole == (c.rule.Action == Corrupt) && c.name != "all initiations" && c.arrive > 0 {
					t.Errorf("corrupt is %v", !whole)
				}
				trap.Remove()
				a.send(t, addrPort("198.51.100.1:2000"), send...)
				if all := b.drain(time.Second); len(all) != len(send) {
					t.Errorf("%d arrived after the rule was removed", len(all))
				}
			})
		})
	}
}

func TestBindContract(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newPair(t)
		b := n.Bind(n.b, 2000)
		b.SetBatchSize(8)
		a := listen(t, n.Network, n.a, 0)
		to := addrPort("198.51.100.1:2000")
		for range 3 { // as BindUpdate does
			fns, port, err := b.Open(0)
			if err != nil || port != 2000 || len(fns) != 2 {
				t.Fatalf("open: %d functions, port %d, %v", len(fns), port, err)
			}
			if _, _, err := b.Open(0); !errors.Is(err, conn.ErrBindAlreadyOpen) {
				t.Errorf("opened twice: %v", err)
			}
			if _, _, err := n.Bind(n.b, 2000).Open(0); !errors.Is(err, syscall.EADDRINUSE) {
				t.Errorf("port taken twice: %v", err)
			}
			for range 12 {
				a.send(t, to, "x")
			}
			bufs, sizes, eps := make([][]byte, 8), make([]int, 8), make([]conn.Endpoint, 8)
			for i := range bufs {
				bufs[i] = make([]byte, 10)
			}
			for _, want := range []int{8, 4} {
				if k, err := fns[0](bufs, sizes, eps); k != want || err != nil {
					t.Errorf("batch of %d, %v, want %d", k, err, want)
				}
			}
			done := make(chan error)
			go func() { _, err := fns[1](bufs, sizes, eps); done <- err }()
			synctest.Wait()
			if err := b.Close(); err != nil {
				t.Fatal(err)
			}
			if err := <-done; !errors.Is(err, net.ErrClosed) {
				t.Errorf("waiting receive: %v", err)
			}
			if _, err := fns[0](bufs, sizes, eps); !errors.Is(err, net.ErrClosed) {
				t.Errorf("receive after close: %v", err)
			}
			if err := b.Send(bufs[:1], NewEndpoint(to)); !errors.Is(err, net.ErrClosed) {
				t.Errorf("send after close: %v", err)
			}
			if err := b.Close(); err != nil {
				t.Errorf("second close: %v", err)
			}
		}
		if tally := b.Tally(); tally.Received != 36 || tally.ReceivedBytes != 36 {
			t.Errorf("tally %+v", tally)
		}
	})
}

func TestSocketOverflowAndMTU(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newPair(t)
		a := listen(t, n.Network, n.a, 0)
		idle := n.Bind(n.b, 2000)
		if _, _, err := idle.Open(0); err != nil {
			t.Fatal(err)
		}
		defer idle.Close()
		for range socketQueue + 5 {
			a.send(t, addrPort("198.51.100.1:2000"), "x")
		}
		if o := n.Outcomes(); o[SocketFull] != 5 || idle.Tally().Overflow != 5 {
			t.Errorf("outcomes %v, tally %+v", o, idle.Tally())
		}
		n.a.SetMTU(128)
		err := a.Send([][]byte{make([]byte, 101), make([]byte, 100)}, NewEndpoint(addrPort("198.51.100.1:2000")))
		if !errors.Is(err, syscall.EMSGSIZE) || a.Tally().Sent != socketQueue+6 {
			t.Errorf("larger than the MTU: %v, %+v", err, a.Tally())
		}
	})
}

func TestEndpoint(t *testing.T) {
	b := New(Options{}).Bind(nil, 0)
	for _, s := range []string{"192.0.2.1:51820", "[2001:db8::1]:1"} {
		e, err := b.ParseEndpoint(s)
		if err != nil || e.DstToString() != s || e.SrcToString() != "" || e.SrcIP().IsValid() {
			t.Errorf("%s: %v %v", s, e, err)
		}
	}
	mapped, err := b.ParseEndpoint("[::ffff:192.0.2.1]:5")
	if err != nil || mapped.DstToString() != "192.0.2.1:5" || len(mapped.DstToBytes()) != 6 {
		t.Errorf("mapped: %v %v", mapped, err)
	}
	if _, err := b.ParseEndpoint("nowhere"); err == nil {
		t.Error("parsed nonsense")
	}
}
