package probe_test

import (
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"patronus/netstack/path"
	"patronus/netstack/probe"
)

const ms = time.Millisecond

// The bar: within 1 percentage point of the truth, read at both ends. The
// directions differ, so that a mix-up shows.
func TestLossIsTheTruthAtBothEnds(t *testing.T) {
	for _, c := range []struct{ out, in float64 }{{0.001, 0.05}, {0.01, 0.001}, {0.05, 0.01}, {0.05, 0.05}, {0, 0}} {
		for seed := range uint64(1) {
			t.Run(fmt.Sprintf("%v-%v/%d", c.out, c.in, seed), func(t *testing.T) {
				t.Parallel()
				s := newSim(seed)
				out := &link{delay: 20 * ms, jitter: 10 * ms, loss: c.out, reorder: 0.02}
				in := &link{delay: 25 * ms, jitter: 10 * ms, loss: c.in, reorder: 0.02}
				a, b := s.path("wan0", out, in, probe.Options{})
				a.traffic(1000)
				b.traffic(1000)
				s.run(60*time.Second + 500*ms)

				for _, e := range []struct {
					name    string
					end     *end
					out, in *link
				}{{"a", a, out, in}, {"b", b, in, out}} {
					q := e.end.tr.Window(path.SlowWindow, e.end.clock())
					check := func(dir string, got path.Loss, l *link, rate float64) {
						truth := 100 * float64(l.lost) / float64(l.sent)
						if math.Abs(got.Percent-truth) > 0.1 {
							t.Errorf("%s %s over 60 s: %.3f %%, truth %.3f %%", e.name, dir, got.Percent, truth)
						}
						if got.Total < 55_000 {
							t.Errorf("%s %s: only %d packets counted", e.name, dir, got.Total)
						}
						if rate == 0 && got.Lost > 60 {
							t.Errorf("%s %s: %d lost of a perfect link", e.name, dir, got.Lost)
						}
					}
					check("out", q.LossOut, e.out, e.out.loss)
					check("in", q.LossIn, e.in, e.in.loss)
					for i, smp := range e.end.samples {
						if i < 11 {
							continue
						}
						if d := smp.Quality.LossOut.Percent - 100*e.out.loss; math.Abs(d) > 1 {
							t.Errorf("%s sample %d: out off by %.2f points", e.name, i, d)
						}
						if d := smp.Quality.LossIn.Percent - 100*e.in.loss; math.Abs(d) > 1 {
							t.Errorf("%s sample %d: in off by %.2f points", e.name, i, d)
						}
					}
					if _, down := e.end.downAt(time.Time{}); down {
						t.Errorf("%s: false Down", e.name)
					}
					// Delay: 45 ms of propagation and two mean jitters.
					if q.Delay < 50*ms || q.Delay > 60*ms {
						t.Errorf("%s: delay %v", e.name, q.Delay)
					}
					if q.Reorder == 0 {
						t.Errorf("%s: no reordering seen", e.name)
					}
				}
				if st := b.in.Stats(); st.Received != out.sent-out.lost-inFlight(st, out) {
					t.Errorf("received %d of %d", st.Received, out.sent-out.lost)
				}
			})
		}
	}
}

// inFlight is what the link still carries at the end, by the receiver's count;
// it has to be no more than the delay allows.
func inFlight(st probe.InBandStats, l *link) uint64 {
	n := l.sent - l.lost - st.Received
	if n > 200 {
		return 0
	}
	return n
}

// A reflector that knows RFC 8972 only gives 32-bit counters, and they wrap.
func TestCountersWrap(t *testing.T) {
	for _, plain := range []bool{false, true} {
		t.Run(fmt.Sprint(plain), func(t *testing.T) {
			s := newSim(1)
			out, in := &link{delay: 10 * ms, loss: 0.02}, &link{delay: 10 * ms, loss: 0.02}
			a, b := s.path("wan0", out, in, probe.Options{})
			a.tx, b.tx, b.plain = 1<<32-5000, 1<<33-7000, plain
			a.traffic(1000)
			b.traffic(1000)
			s.run(20 * time.Second)
			q := a.tr.Window(path.SlowWindow, a.clock())
			if math.Abs(q.LossOut.Percent-2) > 0.5 || math.Abs(q.LossIn.Percent-2) > 0.5 || q.LossOut.Total < 18_000 {
				t.Errorf("loss %+v, %+v", q.LossOut, q.LossIn)
			}
		})
	}
}

// The last packets before a silence are lost: only the sender can know, and only
// from the receiver's count.
func TestTailLoss(t *testing.T) {
	s := newSim(2)
	out, in := &link{delay: 15 * ms, jitter: ms}, &link{delay: 15 * ms, jitter: ms}
	a, b := s.path("wan0", out, in, probe.Options{})
	a.traffic(1000)
	s.run(5 * time.Second)
	out.down = true
	s.run(100 * ms)
	a.silent = true
	out.down = false
	lost := out.lost
	s.run(3 * time.Second)
	if q := a.tr.Window(path.SlowWindow, a.clock()); q.LossOut.Lost != lost || lost < 100 {
		t.Errorf("sender sees %d lost, truth %d", q.LossOut.Lost, lost)
	}
	if q := b.tr.Window(path.SlowWindow, b.clock()); q.LossIn.Lost != lost {
		t.Errorf("receiver sees %d lost, truth %d", q.LossIn.Lost, lost)
	}
}

// After a blackout the counters own up to all of it; during it the probes speak.
func TestBlackoutIsCounted(t *testing.T) {
	s := newSim(3)
	out, in := &link{delay: 15 * ms}, &link{delay: 15 * ms}
	a, b := s.path("wan0", out, in, probe.Options{})
	a.traffic(1000)
	b.traffic(1000)
	s.run(10*time.Second + 200*ms)
	out.down, in.down = true, true
	s.run(3 * time.Second)
	for _, e := range []*end{a, b} {
		smp := e.samples[len(e.samples)-1]
		if smp.State != path.Down || smp.Score != 0 {
			t.Errorf("%v in a blackout: score %d", smp.State, smp.Score)
		}
		if q := e.tr.Window(path.FastWindow, e.clock()); q.LossOut.Percent != 100 || q.LossIn.Percent != 100 {
			t.Errorf("loss of the last second: %.1f, %.1f %%", q.LossOut.Percent, q.LossIn.Percent)
		}
	}
	out.down, in.down = false, false
	healed := s.now
	s.run(5 * time.Second)
	for _, e := range []*end{a, b} {
		if at, ok := e.reached(path.Up, healed); !ok || at.Sub(healed) > 1300*ms {
			t.Errorf("up %v after the link healed", at.Sub(healed))
		}
		q := e.tr.Window(path.SlowWindow, e.clock())
		if truth := e.link.lost; absDiff(q.LossOut.Lost, truth) > 20 {
			t.Errorf("%d lost, truth %d", q.LossOut.Lost, truth)
		}
	}
}

func absDiff(a, b uint64) uint64 { return max(a, b) - min(a, b) }

// Down within 250 ms and the round trip's p99, whichever direction dies.
func TestDownInTime(t *testing.T) {
	var worst time.Duration
	for _, rtt := range []time.Duration{ms, 20 * ms, 80 * ms, 300 * ms} {
		for _, which := range []string{"both", "out", "in"} {
			var took []time.Duration
			for seed := range uint64(10) {
				s := newSim(seed)
				jitter := rtt / 10
				out, in := &link{delay: rtt / 2, jitter: jitter}, &link{delay: rtt / 2, jitter: jitter}
				a, b := s.path("wan0", out, in, probe.Options{})
				a.traffic(200)
				b.traffic(200)
				s.run(4*time.Second + time.Duration(s.rng.Int64N(int64(time.Second))))
				out.down, in.down = which != "in", which != "out"
				cut := s.now
				s.run(2 * time.Second)
				for _, e := range []*end{a, b} {
					at, ok := e.downAt(cut)
					if !ok {
						t.Fatalf("rtt %v %s: never Down", rtt, which)
					}
					took = append(took, at.Sub(cut))
				}
			}
			slices.Sort(took)
			p99 := rtt + 2*rtt/10
			if top := took[len(took)-1]; top > 250*ms+p99 {
				t.Errorf("rtt %v %s: Down after %v at worst, bar %v", rtt, which, top, 250*ms+p99)
			} else {
				worst = max(worst, top-p99)
			}
		}
	}
	t.Logf("at worst %v and the round trip's p99", worst)
}

// Random loss alone must not look like a dead path: at 5 % each way three
// probes in a row go missing once a minute.
func TestRandomLossIsNotDown(t *testing.T) {
	s := newSim(4)
	t.Parallel()
	out := &link{delay: 15 * ms, jitter: 5 * ms, loss: 0.05}
	in := &link{delay: 15 * ms, jitter: 5 * ms, loss: 0.05}
	a, b := s.path("wan0", out, in, probe.Options{})
	a.traffic(20)
	b.traffic(20)
	s.run(20 * time.Minute)
	downs := 0
	for _, e := range []*end{a, b} {
		for _, tr := range e.transitions {
			if tr.To == path.Down {
				downs++
			}
		}
	}
	t.Logf("%d Downs", downs)
	if downs > 2 {
		t.Errorf("%d false Downs in 20 minutes of 5 %% loss", downs)
	}
}

// A brownout of 5 % must make voice leave within 3 s, and be over within 20 s
// of its end.
func TestBrownoutViolatesVoiceInTime(t *testing.T) {
	late := 0
	const runs = 20
	for seed := range uint64(runs) {
		s := newSim(seed)
		out, in := &link{delay: 15 * ms, jitter: 3 * ms}, &link{delay: 15 * ms, jitter: 3 * ms}
		a, b := s.path("wan0", out, in, probe.Options{})
		a.traffic(50)
		b.traffic(50)
		s.run(15*time.Second + time.Duration(s.rng.Int64N(int64(time.Second))))
		out.loss, in.loss = 0.05, 0.05
		voice := func() bool {
			c := a.tr.Candidate(0)
			return c.Class[0].Violates
		}
		if voice() {
			t.Fatal("violates before the brownout")
		}
		s.run(3 * time.Second)
		if !voice() {
			late++
		}
		s.run(10 * time.Second)
		if !voice() {
			t.Errorf("seed %d: not violating after 13 s of 5 %% loss", seed)
		}
		out.loss, in.loss = 0, 0
		s.run(20 * time.Second)
		if voice() {
			t.Errorf("seed %d: still violating 20 s after the end", seed)
		}
	}
	if late > runs/10 {
		t.Errorf("%d of %d brownouts took over 3 s to see", late, runs)
	}
}

// A peer that restarts counts from 0 in a new epoch: no loss is invented.
func TestPeerRestart(t *testing.T) {
	s := newSim(5)
	out, in := &link{delay: 10 * ms}, &link{delay: 10 * ms}
	a, b := s.path("wan0", out, in, probe.Options{})
	a.traffic(1000)
	b.traffic(1000)
	s.run(5 * time.Second)
	b.in, b.tx, b.counter, b.epoch, b.refl = probe.NewInBand(), 0, 0, 23, probe.ReflectorState{}
	b.index, a.index, a.counter = 99, 98, 0
	s.run(5 * time.Second)
	q := a.tr.Window(path.SlowWindow, a.clock())
	if q.LossOut.Lost > 40 || q.LossIn.Lost > 40 || q.LossOut.Total < 9000 {
		t.Errorf("loss after a restart: %+v %+v", q.LossOut, q.LossIn)
	}
}
