package netstack

import (
	"context"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.zx2c4.com/wireguard/conn"

	"patronus/configs"
	"patronus/e2e/vnet"
	"patronus/netstack/lan"
	"patronus/netstack/packet"
)

// world is a virtual internet with running engines on it, in virtual time.
// gVisor's goroutines cannot live in a synctest bubble, so the engines' hosts
// are made outside of it and do not run: nothing is addressed to them.
type world struct {
	t    *testing.T
	net  *vnet.Network
	inet *vnet.Cloud
	plan *plan
	// sites in the order of the plan
	sites []*place
}

// place is one site of a world.
type place struct {
	*Engine
	name string
	nics map[string]*vnet.NIC
	far  *lan.Cable
	cfg  *configs.Config
	rev  uint64

	mu     sync.Mutex
	got    [][]byte
	gotAt  []time.Time
	events []Event
}

// kept keeps engines reachable: finalizers of what they hold must not run while
// a bubble exists (Decision 1).
var kept struct {
	sync.Mutex
	engines []*Engine
}

// inWorld runs f in a bubble with a fabric of the plan's sites, all started.
// Access lines have 10 ms each way.
func inWorld(t *testing.T, p *plan, change func(*configs.Config), f func(t *testing.T, w *world)) {
	t.Helper()
	inSeededWorld(t, 1, p, change, f)
}

func inSeededWorld(t *testing.T, seed uint64, p *plan, change func(*configs.Config), f func(t *testing.T, w *world)) {
	t.Helper()
	hosts := make([]*stackHost, len(p.sites))
	for i := range hosts {
		h, err := newStackHost()
		if err != nil {
			t.Fatal(err)
		}
		defer h.close()
		hosts[i] = h
	}
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, plan: p, net: vnet.New(vnet.Options{Seed: seed})}
		t.Cleanup(w.net.Close)
		vnet.OnFailure(t, w.net)
		w.inet = w.net.Cloud("inet")
		ctx, cancel := context.WithCancel(context.Background())
		group, ctx := errgroup.WithContext(ctx)
		t.Cleanup(func() {
			cancel()
			if err := group.Wait(); err != nil && err != context.Canceled {
				t.Error(err)
			}
		})
		for i := range p.sites {
			w.add(hosts[i], i, change)
		}
		for _, s := range w.sites {
			s.start(ctx, group)
			group.Go(func() error { s.listen(); return nil })
			group.Go(func() error {
				<-ctx.Done()
				return s.far.Close()
			})
		}
		f(t, w)
	})
}

func (w *world) add(h *stackHost, i int, change func(*configs.Config)) {
	s := &place{name: w.plan.sites[i].Name, nics: map[string]*vnet.NIC{}}
	node := w.net.Node(s.name)
	opener := &memory{keys: w.plan.keys, far: map[string]*recorder{}, port: map[string]lan.Port{}, fail: map[string]bool{}}
	opener.bind = func(u *configs.Uplink) (conn.Bind, error) {
		at := w.plan.sites[i].Uplinks[0].Endpoints[0]
		for _, mine := range w.plan.sites[i].Uplinks {
			if mine.Name == u.Name {
				at = mine.Endpoints[0]
			}
		}
		nic := s.nics[u.Name]
		if nic == nil {
			nic = node.Attach(w.inet, u.Name, at.Addr())
			nic.Link().Set(vnet.Impairment{Delay: 10 * time.Millisecond})
			s.nics[u.Name] = nic
		}
		return w.net.Bind(nic, at.Port()), nil
	}
	near, far := lan.NewCable(lan.CableOptions{Name: "lan0"})
	opener.port["lan0"], s.far = near, far
	s.Engine = newEngine(Options{Opener: opener, BatchSize: 8, Sink: s.take, Flows: configs.Flows{Max: 1 << 12}}, h)
	kept.Lock()
	kept.engines = append(kept.engines, s.Engine)
	kept.Unlock()
	w.sites = append(w.sites, s)
	if change == nil {
		change = func(*configs.Config) {}
	}
	s.apply(w.t, w.plan.config(w.t, s.name, change))
}

func (s *place) apply(t *testing.T, cfg *configs.Config) {
	t.Helper()
	s.rev++
	s.cfg = cfg
	if err := s.Apply(s.rev, cfg, compile(t, cfg)); err != nil {
		t.Fatal(err)
	}
}

func (s *place) take(ev Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if ev.Kind != PathMetric {
		s.events = append(s.events, ev)
	}
}

// listen is the host behind the site.
func (s *place) listen() {
	bufs := make([]*packet.Buffer, 32)
	for {
		n, err := s.far.Read(bufs)
		if err != nil {
			return
		}
		s.mu.Lock()
		for _, b := range bufs[:n] {
			s.got = append(s.got, append([]byte(nil), b.Bytes...))
			s.gotAt = append(s.gotAt, time.Now())
			b.Release()
		}
		s.mu.Unlock()
	}
}

// received returns what the host got since the last call.
func (s *place) received() [][]byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	got := s.got
	s.got, s.gotAt = nil, nil
	return got
}

// send has the host send packets.
func (s *place) send(t *testing.T, pkts ...[]byte) {
	t.Helper()
	out := make([]lan.Out, len(pkts))
	for i, p := range pkts {
		out[i] = lan.Out{Bytes: p}
	}
	if err := s.far.Write(out); err != nil {
		t.Fatal(err)
	}
}

// states are the states of all paths, by id.
func (s *place) states() map[string]string {
	m := map[string]string{}
	for _, p := range s.Status().Paths {
		m[string(p.ID)] = p.State
	}
	return m
}

// all reports whether every path of every site is in a state.
func (w *world) all(state string) bool {
	for _, s := range w.sites {
		for _, is := range s.states() {
			if is != state {
				return false
			}
		}
	}
	return true
}

// wait lets virtual time pass in steps until cond holds, and returns how long.
func (w *world) wait(what string, limit, step time.Duration, cond func() bool) time.Duration {
	w.t.Helper()
	start := time.Now()
	for !cond() {
		if time.Since(start) > limit {
			for _, s := range w.sites {
				w.t.Logf("%s: %v", s.name, s.states())
			}
			w.t.Fatalf("not within %v: %s", limit, what)
		}
		time.Sleep(step)
		synctest.Wait()
	}
	return time.Since(start)
}

// arrives sends one packet and returns the one that the host there gets.
func (w *world) arrives(from, to *place, b []byte, limit time.Duration) []byte {
	w.t.Helper()
	to.received()
	from.send(w.t, b)
	var got [][]byte
	w.wait("packet from "+from.name+" to "+to.name, limit, time.Millisecond, func() bool {
		got = append(got, to.received()...)
		return len(got) > 0
	})
	return got[0]
}

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func TestFabricComesUp(t *testing.T) {
	inWorld(t, newPlan("hq", "east", "west"), nil, func(t *testing.T, w *world) {
		d := w.wait("all paths up", 8*time.Second, 10*time.Millisecond, func() bool { return w.all("up") })
		t.Logf("all paths up after %v", d)
		for _, f := range []struct{ src, dst string }{{host4, remote4}, {host6, remote6}} {
			b := w.arrives(w.sites[0], w.sites[1], datagram(f.src, f.dst, 1, 2, 1300).build(t), time.Second)
			if in := decode(t, b); in.TTL != 62 {
				t.Errorf("TTL %d", in.TTL)
			}
		}
	})
}
