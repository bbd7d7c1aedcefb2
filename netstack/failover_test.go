package netstack

import (
	"context"
	"encoding/binary"
	"errors"
	"math"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"patronus/configs"
	"patronus/e2e/vnet"
	"patronus/netstack/packet"
	"patronus/netstack/path"
)

// roundTrip is that of a world: two access lines, there and back.
const roundTrip = 40 * time.Millisecond

// call is one-way traffic of numbered packets at a steady pace.
type call struct {
	stop chan struct{}
	done chan struct{}
	sent int
}

// talk starts a call over IPv4 or IPv6 from one site's host to another's.
func (w *world) talk(from, to *place, pkt spec, every time.Duration) *call {
	c := &call{stop: make(chan struct{}), done: make(chan struct{})}
	to.received()
	go func() {
		defer close(c.done)
		pace := time.NewTicker(every)
		defer pace.Stop()
		for {
			binary.BigEndian.PutUint32(pkt.payload, uint32(c.sent))
			from.send(w.t, pkt.build(w.t))
			c.sent++
			select {
			case <-c.stop:
				return
			case <-pace.C:
			}
		}
	}()
	return c
}

func (c *call) end() {
	close(c.stop)
	<-c.done
}

// gap is the longest time without a packet at the receiver, up to now.
func (s *place) gap(from time.Time) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	longest, last := time.Duration(0), from
	for _, at := range s.gotAt {
		if at.Before(from) {
			continue
		}
		longest, last = max(longest, at.Sub(last)), at
	}
	return max(longest, time.Since(last))
}

// over is the path that the flow of a site uses that was active last.
func (s *place) over(t *testing.T) path.ID {
	t.Helper()
	flows := s.Flows(1)
	if len(flows) != 1 || flows[0].Path == "" {
		t.Fatalf("flows %+v", flows)
	}
	return flows[0].Path
}

func local(id path.ID) string {
	e, _ := path.ParseID(string(id))
	return e.LocalUplink
}

// A black hole is found by missing probes, and flows leave it.
func TestBlackHole(t *testing.T) {
	var all []time.Duration
	for _, f := range []spec{datagram(host4, remote4, 9, 5060, 160), datagram(host6, remote6, 9, 5060, 160)} {
		inWorld(t, newPlan("hq", "east"), nil, func(t *testing.T, w *world) {
			hq, east := w.sites[0], w.sites[1]
			w.wait("up", 8*time.Second, 10*time.Millisecond, func() bool { return w.all("up") })
			c := w.talk(hq, east, f, 5*time.Millisecond)
			defer c.end()
			for range 8 {
				time.Sleep(5 * time.Second)
				east.received()
				used := local(hq.over(t))
				broken := time.Now()
				hq.nics[used].Link().Break()
				time.Sleep(2 * time.Second)
				all = append(all, east.gap(broken))
				if now := local(hq.over(t)); now == used {
					t.Errorf("the flow is still on %s", used)
				}
				hq.nics[used].Link().Heal()
				w.wait("healed", 20*time.Second, 100*time.Millisecond, func() bool { return w.all("up") })
			}
		})
	}
	t.Logf("outages by a black hole: %v", all)
	for _, d := range all {
		if d > 300*time.Millisecond+roundTrip {
			t.Errorf("an outage of %v", d)
		}
	}
}

// A lost carrier is told to the peer over another path.
func TestCarrier(t *testing.T) {
	inWorld(t, newPlan("hq", "east"), nil, func(t *testing.T, w *world) {
		hq, east := w.sites[0], w.sites[1]
		w.wait("up", 8*time.Second, 10*time.Millisecond, func() bool { return w.all("up") })
		// East sends; hq's uplink dies. East can know only from hq.
		c := w.talk(east, hq, datagram(remote4, host4, 9, 9, 60), 5*time.Millisecond)
		defer c.end()
		time.Sleep(3 * time.Second)
		hq.received()
		ends, _ := path.ParseID(string(east.over(t)))
		used := ends.RemoteUplink
		died := time.Now()
		hq.nics[used].SetCarrier(false)
		hq.SetCarrier(used, false)
		told := w.wait("east knows", time.Second, time.Millisecond, func() bool {
			states := east.states()
			return states["east.wan0~hq."+used] == "down" && states["east.lte0~hq."+used] == "down"
		})
		time.Sleep(time.Second)
		t.Logf("the peer knew after %v; outage %v", told, hq.gap(died))
		if told > 20*time.Millisecond || hq.gap(died) > 60*time.Millisecond {
			t.Errorf("the peer knew after %v, outage %v", told, hq.gap(died))
		}
		for id, state := range hq.states() {
			if want := strings.HasPrefix(id, "hq."+used+"~"); (state == "down") != want {
				t.Errorf("%s is %s", id, state)
			}
		}
		hq.nics[used].SetCarrier(true)
		hq.SetCarrier(used, true)
		w.wait("healed", 10*time.Second, 10*time.Millisecond, func() bool { return w.all("up") })
		events := 0
		hq.mu.Lock()
		for _, ev := range hq.events {
			if ev.Kind == CarrierChange && ev.Uplink == used {
				events++
			}
		}
		hq.mu.Unlock()
		if events != 2 {
			t.Errorf("%d carrier events", events)
		}
	})
}

// Without traffic a path turns cold: Unknown, never Down, and silent. The first
// packet wakes it.
func TestCold(t *testing.T) {
	inWorld(t, newPlan("hq", "east"), nil, func(t *testing.T, w *world) {
		hq, east := w.sites[0], w.sites[1]
		w.wait("up", 8*time.Second, 10*time.Millisecond, func() bool { return w.all("up") })
		w.wait("cold", 20*time.Minute, time.Second, func() bool { return w.all("unknown") })
		time.Sleep(time.Minute)
		before := w.net.Outcomes()[vnet.Delivered]
		time.Sleep(10 * time.Minute)
		if n := w.net.Outcomes()[vnet.Delivered] - before; n > 0 {
			t.Errorf("%d datagrams over cold paths", n)
		}
		for _, s := range w.sites {
			s.mu.Lock()
			for _, ev := range s.events {
				if ev.Kind == PathStatusChange && ev.New == "down" {
					t.Errorf("%s: %+v", s.name, ev)
				}
			}
			s.mu.Unlock()
		}
		start := time.Now()
		w.arrives(hq, east, datagram(host4, remote4, 1, 2, 10).build(t), 5*time.Second)
		t.Logf("the first packet took %v", time.Since(start))
		if time.Since(start) > 200*time.Millisecond {
			t.Errorf("the first packet took %v", time.Since(start))
		}
		w.wait("warm again", 10*time.Second, 10*time.Millisecond, func() bool { return w.all("up") })
	})
}

// Loss that violates the voice class moves its flows.
func TestBrownout(t *testing.T) {
	var all []time.Duration
	for seed := range uint64(10) {
		inSeededWorld(t, seed, newPlan("hq", "east"), nil, func(t *testing.T, w *world) {
			hq, east := w.sites[0], w.sites[1]
			w.wait("up", 8*time.Second, 10*time.Millisecond, func() bool { return w.all("up") })
			voice := datagram(host4, remote4, 9, 5060, 160)
			voice.tos = 46 << 2
			c := w.talk(hq, east, voice, 20*time.Millisecond)
			defer c.end()
			time.Sleep(40 * time.Second)
			if f := hq.Flows(1)[0]; f.Class != "voice" {
				t.Fatalf("class %s", f.Class)
			}
			used := local(hq.over(t))
			hq.nics[used].Link().Update(func(i *vnet.Impairment) { i.Loss = 0.05 })
			all = append(all, w.wait("moved", 20*time.Second, 10*time.Millisecond, func() bool { return local(hq.over(t)) != used }))
		})
	}
	slices.Sort(all)
	t.Logf("5 %% loss: voice moved after %v", all)
	if median := all[len(all)/2]; median > 3*time.Second {
		t.Errorf("voice moved after %v in the median", median)
	}
}

// An uplink that flaps at 1 Hz does not take its flows along each time.
func TestFlapping(t *testing.T) {
	inWorld(t, newPlan("hq", "east"), nil, func(t *testing.T, w *world) {
		hq, east := w.sites[0], w.sites[1]
		w.wait("up", 8*time.Second, 10*time.Millisecond, func() bool { return w.all("up") })
		c := w.talk(hq, east, datagram(host4, remote4, 9, 5060, 160), 20*time.Millisecond)
		defer c.end()
		time.Sleep(5 * time.Second)
		link := hq.nics[local(hq.over(t))].Link()
		for range 60 {
			link.Break()
			time.Sleep(500 * time.Millisecond)
			link.Heal()
			time.Sleep(500 * time.Millisecond)
		}
		moves := hq.Flows(1)[0].Moves
		t.Logf("60 flaps in a minute: %d moves", moves)
		if moves == 0 || moves > 4 {
			t.Errorf("%d moves", moves)
		}
	})
}

// In-band counters measure the loss of real packets, at both ends.
func TestInBandLoss(t *testing.T) {
	for _, loss := range []float64{0.001, 0.01, 0.05} {
		one := func(c *configs.Config) {
			for i := range c.Sites {
				c.Sites[i].Uplinks = c.Sites[i].Uplinks[:1]
			}
		}
		inWorld(t, newPlan("hq", "east"), one, func(t *testing.T, w *world) {
			hq, east := w.sites[0], w.sites[1]
			w.wait("up", 8*time.Second, 10*time.Millisecond, func() bool { return w.all("up") })
			hq.nics["wan0"].Link().Out.Update(func(i *vnet.Impairment) { i.Loss = loss })
			c := w.talk(hq, east, datagram(host4, remote4, 9, 9, 160), 2*time.Millisecond)
			defer c.end()
			before := hq.nics["wan0"].Link().Out.Stats()
			time.Sleep(61 * time.Second)
			s := hq.nics["wan0"].Link().Out.Stats().Sub(before)
			truth := 100 * float64(s.Missing()) / float64(s.Offered)
			there, here := hq.Status().Paths[0].Metrics, east.Status().Paths[0].Metrics
			t.Logf("truth %.3f %%; sender sees %.3f %%, receiver %.3f %%", truth, float64(there.LossOut), float64(here.LossIn))
			for _, got := range []float64{float64(there.LossOut), float64(here.LossIn)} {
				if math.Abs(got-truth) > 1 {
					t.Errorf("loss %.3f %%, truth %.3f %%", got, truth)
				}
			}
			if in := float64(here.LossOut); in > 0.1 {
				t.Errorf("the way back has no loss, and yet %.3f %%", in)
			}
		})
	}
}

// TestPath measures on demand.
func TestTestPath(t *testing.T) {
	inWorld(t, newPlan("hq", "east"), nil, func(t *testing.T, w *world) {
		hq := w.sites[0]
		if _, err := hq.TestPath(t.Context(), "hq.wan0~nowhere.wan0"); !errors.Is(err, ErrUnknownPath) {
			t.Errorf("unknown path: %v", err)
		}
		w.wait("up", 8*time.Second, 10*time.Millisecond, func() bool { return w.all("up") })
		r, err := hq.TestPath(t.Context(), "hq.wan0~east.wan0")
		if err != nil || r.Received != r.Sent || r.Min < 39*time.Millisecond || r.Max > 41*time.Millisecond {
			t.Errorf("%+v, %v", r, err)
		}
		hq.nics["wan0"].Link().Break()
		if r, err = hq.TestPath(t.Context(), "hq.wan0~east.wan0"); err != nil || r.Received != 0 {
			t.Errorf("broken: %+v, %v", r, err)
		}
		over, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := hq.TestPath(over, "hq.wan0~east.wan0"); !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled: %v", err)
		}
	})
}

// byName finds a path.
func (s *place) byName(t *testing.T, id path.ID) *pathState {
	t.Helper()
	for _, p := range *s.pathList.Load() {
		if p != nil && p.id == id {
			return p
		}
	}
	t.Fatalf("no path %s", id)
	return nil
}

// push puts a packet into a path's tunnel, past all checks.
func (s *place) push(p *pathState, pkt []byte) {
	b := packet.Get(len(pkt))
	copy(b.Bytes, pkt)
	packet.Decode(b.Bytes, &b.Info)
	s.Engine.send(FromWAN, p, b, 0)
}

// At a hub the flows of spokes pass in both directions, and a spoke cannot
// speak for another one.
func TestHubAndSpoke(t *testing.T) {
	hub := func(c *configs.Config) {
		c.Topology = configs.Topology{Mode: configs.HubAndSpoke, Hubs: []string{"hq"}}
	}
	inWorld(t, newPlan("hq", "east", "west"), hub, func(t *testing.T, w *world) {
		hq, east, west := w.sites[0], w.sites[1], w.sites[2]
		if n := len(east.Status().Paths); n != 4 {
			t.Errorf("a spoke has %d paths", n)
		}
		w.wait("up", 8*time.Second, 10*time.Millisecond, func() bool { return w.all("up") })
		for _, f := range []struct{ e, w, h string }{{remote4, "10.3.0.10", host4}, {remote6, "fd00:3::10", host6}} {
			for range 3 {
				there := w.arrives(east, west, segment(f.e, f.w, 1000, 443, "S", 0).build(t), time.Second)
				if in := decode(t, there); in.TTL != 61 { // three routers
					t.Errorf("TTL %d", in.TTL)
				}
				if mss := binary.BigEndian.Uint16(there[len(there)-2:]); mss > 1360 {
					t.Errorf("MSS %d", mss)
				}
				w.arrives(west, east, segment(f.w, f.e, 443, 1000, "SA", 0).build(t), time.Second)
			}
			w.arrives(east, hq, datagram(f.e, f.h, 1, 2, 3).build(t), time.Second)
			w.arrives(hq, east, datagram(f.h, f.e, 2, 1, 3).build(t), time.Second)
		}
		// A malicious spoke: it does not check its own hosts, and speaks for
		// another spoke. The hub does.
		before := hq.Status().Counters.FromWAN.Dropped["spoofed"]
		evil := east.byName(t, "east.wan0~hq.wan0")
		east.push(evil, datagram("10.3.0.10", host4, 1, 2, 3).build(t))
		w.wait("the hub to notice", time.Second, time.Millisecond, func() bool {
			return hq.Status().Counters.FromWAN.Dropped["spoofed"] == before+1
		})
	})
}

// The hub's uplink to one spoke fails: transit flows move, both ways.
func TestHubFailover(t *testing.T) {
	hub := func(c *configs.Config) {
		c.Topology = configs.Topology{Mode: configs.HubAndSpoke, Hubs: []string{"hq"}}
	}
	inWorld(t, newPlan("hq", "east", "west"), hub, func(t *testing.T, w *world) {
		hq, east, west := w.sites[0], w.sites[1], w.sites[2]
		w.wait("up", 8*time.Second, 10*time.Millisecond, func() bool { return w.all("up") })
		out := w.talk(east, west, datagram(remote4, "10.3.0.10", 7, 7, 30), 5*time.Millisecond)
		defer out.end()
		back := w.talk(west, east, datagram("10.3.0.10", remote4, 7, 7, 30), 5*time.Millisecond)
		defer back.end()
		for _, name := range []string{"wan0", "lte0"} {
			time.Sleep(4 * time.Second)
			east.received()
			west.received()
			broken := time.Now()
			hq.nics[name].Link().Break()
			time.Sleep(3 * time.Second)
			t.Logf("%s: outages %v and %v", name, west.gap(broken), east.gap(broken))
			if a, b := west.gap(broken), east.gap(broken); a > 700*time.Millisecond || b > 700*time.Millisecond {
				t.Errorf("outages %v and %v", a, b)
			}
			hq.nics[name].Link().Heal()
			w.wait("healed", 20*time.Second, 100*time.Millisecond, func() bool { return w.all("up") })
		}
		for v := range hq.flows.All() {
			if v.Moves > 4 {
				t.Errorf("%d moves", v.Moves)
			}
		}
	})
}

// An appliance that lost its state is back at once, not after WireGuard's 15 s.
func TestNATAndRoaming(t *testing.T) {
	for _, kind := range []vnet.RouterKind{vnet.FullCone, vnet.AddressRestricted, vnet.PortRestricted, vnet.Symmetric} {
		t.Run(kind.String(), func(t *testing.T) {
			p := newPlan("hq", "east")
			behind := func(c *configs.Config) {
				for i := range c.Sites[1].Uplinks {
					c.Sites[1].Uplinks[i].Endpoints = nil
					c.Sites[1].Uplinks[i].Keepalive = configs.Duration(15 * time.Second)
				}
			}
			inWorld(t, p, behind, func(t *testing.T, w *world) {
				hq, east := w.sites[0], w.sites[1]
				routers := map[string]*vnet.Router{}
				for i, name := range []string{"wan0", "lte0"} {
					routers[name] = w.inet.Router("nat-"+name, vnet.RouterOptions{Kind: kind, Timeout: 30 * time.Second}, addr("192.0.2.1"+string(rune('0'+i))))
					east.nics[name].Move(routers[name].Inside(), addr("192.168.1.2"))
				}
				w.wait("up", 20*time.Second, 10*time.Millisecond, func() bool { return w.all("up") })
				// Silence: the keepalive holds the mapping open for the other side.
				time.Sleep(25 * time.Minute)
				start := time.Now()
				w.arrives(hq, east, datagram(host4, remote4, 1, 2, 10).build(t), 2*time.Second)
				if d := time.Since(start); d > 500*time.Millisecond {
					t.Errorf("through the NAT after %v", d)
				}
				w.wait("warm", 10*time.Second, 10*time.Millisecond, func() bool { return w.all("up") })
				// The NAT restarts under traffic from outside.
				c := w.talk(hq, east, datagram(host6, remote6, 1, 2, 10), 10*time.Millisecond)
				defer c.end()
				time.Sleep(2 * time.Second)
				east.received()
				at := time.Now()
				routers[local(path.ID("x."+remoteUplink(hq.over(t))+"~y.z"))].Rebind()
				time.Sleep(5 * time.Second)
				t.Logf("rebinding: outage %v", east.gap(at))
				if d := east.gap(at); d > time.Second {
					t.Errorf("rebinding: outage %v", d)
				}
				// The address changes.
				east.received()
				at = time.Now()
				routers["wan0"].Outside().SetAddrs(netip.MustParseAddr("192.0.2.99"))
				time.Sleep(5 * time.Second)
				if d := east.gap(at); d > time.Second {
					t.Errorf("roaming: outage %v", d)
				}
				w.wait("all up", 30*time.Second, 10*time.Millisecond, func() bool { return w.all("up") })
			})
		})
	}
}

func remoteUplink(id path.ID) string {
	e, _ := path.ParseID(string(id))
	return e.RemoteUplink
}
