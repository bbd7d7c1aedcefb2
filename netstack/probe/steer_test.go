package probe_test

import (
	"net/netip"
	"testing"
	"time"

	"patronus/configs"
	"patronus/netstack/path"
	"patronus/netstack/probe"
)

// pair is two paths between two sites, with flows of site a steered over them
// as the engine would.
type pair struct {
	*sim
	a, b  [2]*end
	out   [2]*link
	in    [2]*link
	class *path.Class
	flows []int // the path of each flow
	moves []int
	warm  bool
}

func newPair(seed uint64, prefer bool) *pair {
	s := newSim(seed)
	p := &pair{sim: s, flows: make([]int, 16), moves: make([]int, 16)}
	var cfg []configs.Class
	if prefer {
		cfg = []configs.Class{{Name: path.DefaultClass, Prefer: [][]string{{"wan0"}, {"lte0"}}}}
		cfg[0].SLA, _ = path.PresetSLA(path.PresetPatronus, path.DefaultClass)
	}
	cs, err := path.NewClasses(cfg)
	if err != nil {
		panic(err)
	}
	p.class = cs.Class(cs.Default())
	for i, name := range []string{"wan0", "lte0"} {
		p.out[i] = &link{delay: 10 * ms, jitter: 2 * ms}
		p.in[i] = &link{delay: 10 * ms, jitter: 2 * ms}
		p.a[i], p.b[i] = s.path(name, p.out[i], p.in[i], probe.Options{SSID: uint16(10 * i)})
		p.a[i].tr.SetClasses(cs)
		p.a[i].onChange = p.steer
	}
	for i := range p.flows {
		p.flows[i] = -1
	}
	var carry func()
	carry = func() {
		for _, f := range p.flows {
			if f < 0 {
				continue
			}
			for i := range 2 {
				for _, e := range []*end{p.a[i], p.b[i]} {
					if i == f {
						e.sess.Carried(e.clock(), e.clock())
					} else {
						e.sess.Wanted(e.clock(), e.clock())
					}
					e.wake()
				}
			}
			p.a[f].send(nil, false)
			p.b[f].send(nil, false)
		}
		s.after(100*ms, carry)
	}
	s.after(ms, carry)
	return p
}

func (p *pair) steer() {
	if !p.warm { // flows start when both paths are known
		p.warm = p.a[0].tr.State() == path.Up && p.a[1].tr.State() == path.Up
	}
	if !p.warm {
		return
	}
	cands := []path.Candidate{p.a[0].tr.Candidate(0), p.a[1].tr.Candidate(1)}
	for i, f := range p.flows {
		to, _ := path.Steer(p.class, cands, uint64(i)*0x9e3779b97f4a7c15, f)
		if to != f && f >= 0 {
			p.moves[i]++
		}
		p.flows[i] = to
	}
}

func (p *pair) flap(i int, down bool) { p.out[i].down, p.in[i].down = down, down }

// The bar: an uplink that flaps at 1 Hz moves no flow more than 4 times a
// minute. Slower flapping is harder, since each Up lasts longer.
func TestFlappingLinkIsDamped(t *testing.T) {
	for _, prefer := range []bool{false, true} {
		for _, period := range []time.Duration{time.Second, 4 * time.Second, 20 * time.Second} {
			p := newPair(1, prefer)
			p.run(35 * time.Second) // both settle
			clear(p.moves)
			for end := p.now.Add(time.Minute); p.now.Before(end); {
				p.flap(0, true)
				p.run(period / 2)
				p.flap(0, false)
				p.run(period / 2)
			}
			moved := 0
			for i, n := range p.moves {
				moved = max(moved, n)
				if n > 4 {
					t.Errorf("prefer %v, period %v: flow %d moved %d times", prefer, period, i, n)
				}
			}
			if moved == 0 {
				t.Errorf("prefer %v, period %v: no flow left the flapping link", prefer, period)
			}
		}
	}
}

// Flows come home when the link has been good for 30 s, and not before.
func TestFlowsReturn(t *testing.T) {
	p := newPair(2, true)
	p.run(35 * time.Second)
	for i, f := range p.flows {
		if f != 0 {
			t.Fatalf("flow %d on path %d, want the preferred one", i, f)
		}
	}
	p.flap(0, true)
	p.run(300 * ms)
	for i, f := range p.flows {
		if f != 1 {
			t.Fatalf("flow %d on path %d 300 ms after the blackhole", i, f)
		}
	}
	p.run(5 * time.Second)
	p.flap(0, false)
	p.run(25 * time.Second)
	for i, f := range p.flows {
		if f != 1 {
			t.Fatalf("flow %d back on path %d after 25 s", i, f)
		}
	}
	p.run(10 * time.Second)
	for i, f := range p.flows {
		if f != 0 {
			t.Fatalf("flow %d on path %d 35 s after it healed", i, f)
		}
	}
}

// A stand-by path is known before it is needed, and equal paths share flows.
func TestStandbyIsMeasured(t *testing.T) {
	p := newPair(3, false)
	p.run(20 * time.Second)
	var n [2]int
	for _, f := range p.flows {
		n[f]++
	}
	if n[0] == 0 || n[1] == 0 {
		t.Errorf("flows are not balanced: %v", n)
	}
	q := newPair(3, true)
	q.run(20 * time.Second)
	if r := q.a[1].sess.Rate(q.a[1].clock()); r != probe.RateWarm {
		t.Errorf("stand-by path is %v", r)
	}
	if s := q.a[1].samples[len(q.a[1].samples)-1]; s.State != path.Up || s.Score < 90 {
		t.Errorf("stand-by path: %v, score %d", s.State, s.Score)
	}
}

// A carrier loss here is told over the other paths, and moves the peer's flows
// within a round trip.
func TestNoticeOvertakesProbes(t *testing.T) {
	p := newPair(4, false)
	p.run(10 * time.Second)
	p.flap(0, true)
	p.a[0].note(p.a[0].tr.Carrier(false, p.a[0].clock()))
	n := probe.Notice{Uplink: netip.MustParseAddr("240.1.2.3"), Seq: 7}
	p.a[1].sess.Announce([]probe.Notice{n}, p.a[1].clock())
	p.a[1].wake()
	for i, f := range p.flows {
		if f != 1 {
			t.Errorf("flow %d still on path %d", i, f)
		}
	}
	p.run(13 * ms) // half a round trip and its jitter
	got := p.b[1].notices
	if len(got) == 0 || got[0] != n {
		t.Fatalf("notices after half a round trip: %v", got)
	}
	b := p.b[0]
	b.note(b.tr.PeerNotice(false, b.clock()))
	if b.tr.State() != path.Down {
		t.Errorf("peer's path is %v", b.tr.State())
	}
	p.run(time.Second)
	if c := len(p.b[1].notices); c > 3 {
		t.Errorf("sent %d times although it was answered", c)
	}
	var book probe.Notices
	if !book.Accept(n) || book.Accept(n) || !book.Accept(probe.Notice{Uplink: n.Uplink, Alive: true, Seq: 8}) || book.Accept(n) {
		t.Error("Notices does not tell news from echoes")
	}
	// Back again: replies count once the notice says so.
	p.flap(0, false)
	p.a[0].tr.Carrier(true, p.a[0].clock())
	b.tr.PeerNotice(true, b.clock())
	p.run(2 * time.Second)
	if p.a[0].tr.State() != path.Up || b.tr.State() != path.Up {
		t.Errorf("after the link came back: %v, %v", p.a[0].tr.State(), b.tr.State())
	}
}
