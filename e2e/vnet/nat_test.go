package vnet

import (
	"net/netip"
	"testing"
	"testing/synctest"
	"time"
)

// natNet is a host behind a router, and two addresses of the internet with two
// sockets each.
type natNet struct {
	*Network
	r      *Router
	inside *sock
	// peer[0] and [1] share an address.
	peer [3]*sock
	at   [3]netip.AddrPort
}

func newNAT(t *testing.T, o RouterOptions, v6 bool) natNet {
	n := New(Options{Seed: 11})
	t.Cleanup(n.Close)
	OnFailure(t, n)
	pick := func(v4, six string) netip.Addr {
		if v6 {
			return addr(six)
		}
		return addr(v4)
	}
	inet := n.Cloud("inet")
	x := natNet{Network: n, r: inet.Router("home", o, pick("203.0.113.1", "2001:db8:1::1"))}
	x.inside = listen(t, n, n.Node("hq").Attach(x.r.Inside(), "wan0", pick("10.0.0.2", "fd00::2")), 1000)
	p := n.Node("p").Attach(inet, "eth0", pick("198.51.100.1", "2001:db8:2::1"))
	q := n.Node("q").Attach(inet, "eth0", pick("198.51.100.2", "2001:db8:2::2"))
	x.peer = [3]*sock{listen(t, n, p, 7), listen(t, n, p, 8), listen(t, n, q, 7)}
	for i, s := range x.peer {
		x.at[i] = netip.AddrPortFrom(s.NIC().Addrs()[0], s.port)
	}
	return x
}

// out sends from inside to peer i and returns the address it is seen under.
func (x natNet) out(t *testing.T, i int) netip.AddrPort {
	t.Helper()
	x.inside.send(t, x.at[i], "out")
	all := x.peer[i].drain(time.Millisecond)
	if payloads(all) != "out" {
		t.Fatalf("peer %d got %v, outcomes %v", i, all, x.Outcomes())
	}
	return all[0].from.Dst()
}

// in reports whether peer i reaches inside through to.
func (x natNet) in(t *testing.T, i int, to netip.AddrPort) bool {
	t.Helper()
	x.peer[i].send(t, to, "in")
	all := x.inside.drain(time.Millisecond)
	if len(all) > 0 && all[0].from.Dst() != x.at[i] {
		t.Errorf("inside sees %s instead of %s", all[0].from.Dst(), x.at[i])
	}
	return len(all) == 1
}

func TestNATKinds(t *testing.T) {
	for _, c := range []struct {
		kind             RouterKind
		same             bool // one mapping for all remotes
		samePeer, others [2]bool
	}{
		// After sending to peer 0 only: may 0 answer, may 1 (other port), may 2 (other address)?
		{FullCone, true, [2]bool{true, true}, [2]bool{true, true}},
		{AddressRestricted, true, [2]bool{true, true}, [2]bool{false, false}},
		{PortRestricted, true, [2]bool{true, false}, [2]bool{false, false}},
		{Symmetric, false, [2]bool{true, false}, [2]bool{false, false}},
	} {
		for _, v6 := range []bool{false, true} {
			name := c.kind.String() + " v4"
			if v6 {
				name = c.kind.String() + " v6"
			}
			t.Run(name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					x := newNAT(t, RouterOptions{Kind: c.kind, Timeout: 30 * time.Second}, v6)
					if x.in(t, 0, netip.AddrPortFrom(x.r.Outside().Addrs()[0], 1000)) {
						t.Error("something came in unasked")
					}
					seen := x.out(t, 0)
					if seen.Addr() != x.r.Outside().Addrs()[0] {
						t.Errorf("seen as %s", seen)
					}
					if got := [2]bool{x.in(t, 0, seen), x.in(t, 1, seen)}; got != c.samePeer {
						t.Errorf("the address that was sent to: %v, want %v", got, c.samePeer)
					}
					if got := [2]bool{x.in(t, 2, seen), x.in(t, 2, seen)}; got != c.others {
						t.Errorf("another address: %v, want %v", got, c.others)
					}
					if again := x.out(t, 2); (again == seen) != c.same {
						t.Errorf("seen as %s and as %s", seen, again)
					}
					if m := x.r.Mappings(); len(m) != 1 {
						t.Errorf("mappings %v", m)
					}
					// Unused, the mapping ends; used, it would not.
					x.inside.drain(20 * time.Second)
					if x.out(t, 0) != seen {
						t.Error("the port changed within the timeout")
					}
					x.inside.drain(20 * time.Second)
					if !x.in(t, 0, seen) {
						t.Error("traffic from inside did not keep the mapping")
					}
					x.inside.drain(11 * time.Second)
					if x.in(t, 0, seen) {
						t.Error("traffic from outside kept the mapping")
					}
					if x.out(t, 0) == seen {
						t.Error("the old port came back")
					}
				})
			})
		}
	}
}

func TestNATRebinding(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newNAT(t, RouterOptions{Kind: PortRestricted}, false)
		before := x.out(t, 0)
		x.r.Rebind()
		if x.in(t, 0, before) {
			t.Error("the old mapping still works")
		}
		after := x.out(t, 0)
		if after == before || !x.in(t, 0, after) {
			t.Errorf("before %s, after %s", before, after)
		}
		x.r.Outside().SetAddrs(addr("203.0.113.99"))
		if moved := x.out(t, 0); moved.Addr() != addr("203.0.113.99") || !x.in(t, 0, moved) {
			t.Errorf("renumbered: %s", moved)
		}
	})
}

func TestRouterOptions(t *testing.T) {
	for _, c := range []struct {
		name string
		opts RouterOptions
		try  func(t *testing.T, x natNet)
	}{
		{"ports preserved", RouterOptions{Kind: Symmetric, PreservePorts: true}, func(t *testing.T, x natNet) {
			if p := x.out(t, 0).Port(); p != 1000 {
				t.Errorf("port %d", p)
			}
			if p := x.out(t, 1).Port(); p == 1000 {
				t.Error("one port for two mappings")
			}
		}},
		{"refreshed from outside", RouterOptions{Kind: PortRestricted, Timeout: 10 * time.Second, InboundRefresh: true}, func(t *testing.T, x natNet) {
			seen := x.out(t, 0)
			for range 5 {
				x.inside.drain(8 * time.Second)
				if !x.in(t, 0, seen) {
					t.Fatal("mapping ended")
				}
			}
		}},
		{"no hairpin", RouterOptions{Kind: FullCone}, func(t *testing.T, x natNet) {
			x.inside.send(t, x.out(t, 0), "self")
			if all := x.inside.drain(time.Second); len(all) != 0 || x.Outcomes()[NATNoHairpin] != 1 {
				t.Errorf("got %v", all)
			}
		}},
		{"hairpin", RouterOptions{Kind: FullCone, Hairpin: true}, func(t *testing.T, x natNet) {
			seen := x.out(t, 0)
			x.inside.send(t, seen, "self")
			if all := x.inside.drain(time.Second); payloads(all) != "self" || all[0].from.Dst() != seen {
				t.Errorf("got %v", all)
			}
		}},
		{"routed", RouterOptions{Kind: Routed}, func(t *testing.T, x natNet) {
			if seen := x.out(t, 0); seen != addrPort("10.0.0.2:1000") || !x.in(t, 2, seen) {
				t.Errorf("seen as %s", seen)
			}
		}},
		{"no such inside", RouterOptions{Kind: Routed}, func(t *testing.T, x natNet) {
			if x.in(t, 0, addrPort("10.0.0.99:1")) || x.Outcomes()[NoRoute] != 1 {
				t.Errorf("outcomes %v", x.Outcomes())
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { c.try(t, newNAT(t, c.opts, false)) })
		})
	}
}

func TestNATExhausted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newNAT(t, RouterOptions{Kind: Symmetric}, false)
		x.mu.Lock()
		for p := 1024; p < 65536; p++ {
			out := netip.AddrPortFrom(addr("203.0.113.1"), uint16(p))
			x.r.byOut[out] = &mapping{outside: out, used: time.Now()}
		}
		x.mu.Unlock()
		x.inside.send(t, x.at[0], "x")
		if x.peer[0].drain(time.Second); x.Outcomes()[NATExhausted] != 1 {
			t.Errorf("outcomes %v", x.Outcomes())
		}
	})
}
