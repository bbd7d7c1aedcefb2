package namespace

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"patronus/e2e/vnet"
	"patronus/e2e/wire"
	"patronus/netstack"
	"patronus/netstack/path"
)

// Bars of the long set.
const (
	brownoutRuns = 10
	brownoutBar  = 3 * time.Second
	flapTime     = time.Minute
	flapMoves    = 4 // a minute
	lossBar      = 1.0
	lossTime     = 30 * time.Second
	soakTime     = 2 * time.Minute
)

// voice is a class for SIP's port, with the SLA of a telephone.
func voice(*site) string {
	return "classes: [{name: voice, match: [{protocol: udp, ports: [5060]}], sla: {loss_good: 0.3, loss: 2, delay_good: 80ms, delay: 250ms}}]\n"
}

// callRate is the packets a second of the calls in the brownout test: ten
// calls of 20 ms each.
const callRate = 500

// leaves waits until the calls are off a wire, both ways, and returns when the
// last packet of theirs was on it.
func leaves(t *testing.T, w *wire.Wire) time.Time {
	t.Helper()
	const quiet = 300 * time.Millisecond
	// What may still be there are probes.
	const few = uint64(callRate) * uint64(quiet) / uint64(time.Second) / 2
	type reading struct {
		at      time.Time
		out, in uint64
	}
	var seen []reading
	var left time.Time
	eventually(t, time.Minute, "calls move", func() error {
		out, in := w.Link().Stats()
		now := reading{time.Now(), out.Offered, in.Offered}
		seen = append(seen, now)
		for len(seen) > 1 && now.at.Sub(seen[1].at) >= quiet {
			seen = seen[1:]
		}
		then := seen[0]
		if now.at.Sub(then.at) < quiet || now.out-then.out > few || now.in-then.in > few {
			return fmt.Errorf("%d out, %d in during %v", now.out-then.out, now.in-then.in, now.at.Sub(then.at))
		}
		left = then.at
		return nil
	})
	return left
}

// TestBrownout loses 5 % of the uplink that a telephone call uses.
func TestBrownout(t *testing.T) {
	needLong(t)
	for _, f := range families {
		t.Run("underlay="+f.String(), func(t *testing.T) {
			w := newWorld(t, plan{underlay: f, wires: []string{"a-wan0", "a-lte0"}, extra: voice})
			a, b := w.site("a"), w.site("b")
			const port = 5060
			newStream(t, a, b, f, port, callRate)
			var d distribution
			for range brownoutRuns / len(families) {
				uplink := a.uplinkOf("UDP", port)
				line := w.wires["a-"+uplink]
				line.Link().Update(func(i *vnet.Impairment) { i.Loss = 0.05 })
				start := time.Now()
				d = append(d, leaves(t, line).Sub(start))
				line.Link().Update(func(i *vnet.Impairment) { i.Loss = 0 })
				recovers(t, w)
			}
			t.Logf("brownout of 5 %%, overlay and underlay %v: call moves after %v", f, d)
			measured(t, "brownout p99", d.at(99), brownoutBar)
		})
	}
}

// recovers waits until every path is good for calls again.
func recovers(t *testing.T, w *world) {
	t.Helper()
	for _, s := range w.sites {
		eventually(t, 90*time.Second, "paths of "+s.name+" recover", func() error {
			paths, err := s.paths()
			if err != nil {
				return err
			}
			for i := range paths {
				if p := &paths[i]; p.State != "up" || p.Scores["voice"] < 90 {
					return fmt.Errorf("%s is %s with score %d", p.ID, p.State, p.Scores["voice"])
				}
			}
			return nil
		})
	}
}

// TestFlapping breaks and heals the uplink in use once a second for a minute.
func TestFlapping(t *testing.T) {
	needLong(t)
	w := newWorld(t, plan{wires: []string{"a-wan0", "a-lte0"}})
	a, b := w.site("a"), w.site("b")
	const port = 5007
	st := newStream(t, a, b, 4, port, 200)
	uplink := a.uplinkOf("UDP", port)
	line := w.wires["a-"+uplink].Link()
	before := moves(t, w, port)
	half := time.NewTicker(500 * time.Millisecond)
	defer half.Stop()
	start := time.Now()
	for time.Since(start) < flapTime {
		line.Break()
		<-half.C
		line.Heal()
		<-half.C
	}
	for i, n := range moves(t, w, port) {
		t.Logf("flapping at 1 Hz for %v: %d moves at %s", flapTime, n-before[i], w.sites[i].name)
		measured(t, "moves at "+w.sites[i].name, n-before[i], flapMoves)
	}
	st.recovered(t, st.mark(), 100, 5*time.Second)
}

func moves(t *testing.T, w *world, port uint16) (n []uint32) {
	t.Helper()
	for _, s := range w.sites {
		f, err := s.flow("UDP", port)
		if err != nil {
			t.Fatal(err)
		}
		n = append(n, f.Moves)
	}
	return n
}

// TestInBandLoss compares what both ends say about loss with what the wire did.
func TestInBandLoss(t *testing.T) {
	needLong(t)
	for _, f := range families {
		t.Run("underlay="+f.String(), func(t *testing.T) {
			w := newWorld(t, plan{underlay: f, uplinks: []string{"wan0"}, wires: []string{"a-wan0"}})
			a, b := w.site("a"), w.site("b")
			newStream(t, a, b, f, 5008, 1500)
			for _, loss := range []float64{0.001, 0.01, 0.05} {
				inBandLoss(t, w, a, b, loss)
			}
		})
	}
}

func inBandLoss(t *testing.T, w *world, a, b *site, loss float64) {
	line := w.wires["a-wan0"].Link()
	line.Update(func(i *vnet.Impairment) { i.Loss = loss })
	out0, in0 := line.Stats()
	a0, b0 := onlyPath(t, a), onlyPath(t, b)
	during(lossTime)
	a1, b1 := onlyPath(t, a), onlyPath(t, b)
	out1, in1 := line.Stats()
	out, in := out1.Sub(out0), in1.Sub(in0)
	truth := map[string]float64{"a>b": percent(out.Missing(), out.Offered), "b>a": percent(in.Missing(), in.Offered)}
	received := func(now, before *netstack.PathStatus) float64 {
		got, gone := now.InBand.Received-before.InBand.Received, now.InBand.Missing-before.InBand.Missing
		return percent(gone, got+gone)
	}
	value := func(v path.Value) float64 { return float64(v) }
	for _, r := range []struct {
		who, way string
		says     float64
	}{
		{"receiver b, counted", "a>b", received(b1, b0)},
		{"receiver a, counted", "b>a", received(a1, a0)},
		{"sender a, window", "a>b", value(a1.Metrics.LossOut)},
		{"sender b, window", "b>a", value(b1.Metrics.LossOut)},
		{"receiver b, window", "a>b", value(b1.Metrics.LossIn)},
		{"receiver a, window", "b>a", value(a1.Metrics.LossIn)},
	} {
		t.Logf("loss %.1f %%, %s: truth %.3f %%, %s says %.3f %%", 100*loss, r.way, truth[r.way], r.who, r.says)
		if math.IsNaN(r.says) {
			t.Errorf("%s knows nothing of %s", r.who, r.way)
			continue
		}
		measured(t, r.who+" off by points", math.Abs(r.says-truth[r.way]), lossBar)
	}
	if out.Offered < 1000*uint64(lossTime/time.Second) {
		t.Errorf("only %d packets were offered", out.Offered)
	}
}

func percent(n, of uint64) float64 { return 100 * float64(n) / float64(of) }

func onlyPath(t *testing.T, s *site) *netstack.PathStatus {
	t.Helper()
	paths, err := s.paths()
	if err != nil {
		t.Fatal(err)
	}
	return &paths[0]
}

// TestSoak keeps two sites busy and looks for what grows.
func TestSoak(t *testing.T) {
	needLong(t)
	w := newWorld(t, plan{wires: []string{"a-wan0"}})
	a, b := w.site("a"), w.site("b")
	w.wires["a-wan0"].Link().Set(vnet.Impairment{Delay: 5 * time.Millisecond, Jitter: 2 * time.Millisecond, Loss: 0.002, Reorder: 0.01, Duplicate: 0.001})
	tcp := newEcho(t, a, b, 6)
	newStream(t, a, b, 4, 5009, 500)
	roles := []string{"supervisor", "edge", "node"}
	type reading struct{ rss, fds int }
	read := func() (all []reading) {
		for _, s := range w.sites {
			for _, role := range roles {
				all = append(all, reading{rss(t, s.pid(role)), fds(t, s.pid(role))})
			}
		}
		return all
	}
	var warm, last []reading
	for start := time.Now(); time.Since(start) < soakTime; {
		for _, f := range families {
			if err := transfer(a.host, b.host, b.addr(f), 4<<20); err != nil {
				t.Fatal(err)
			}
		}
		if last = read(); warm == nil && time.Since(start) > soakTime/4 {
			warm = last
		}
	}
	tcp.alive(t, 20, 5*time.Second)
	tcp.stop(t)
	for i := range last {
		name := w.sites[i/len(roles)].name + " " + roles[i%len(roles)]
		t.Logf("soak %s: RSS %.1f -> %.1f MiB, descriptors %d -> %d", name,
			float64(warm[i].rss)/(1<<20), float64(last[i].rss)/(1<<20), warm[i].fds, last[i].fds)
		measured(t, name+" grows by MiB", float64(last[i].rss-warm[i].rss)/(1<<20), 10)
		if last[i].fds > warm[i].fds+2 {
			t.Errorf("%s: descriptors leak", name)
		}
	}
	// The traceback of an edge that is told to quit has all its goroutines; the
	// edge that follows it has just begun.
	old := goroutines(t, a)
	w.waitUp()
	if fresh := goroutines(t, a); old > fresh+10 {
		t.Errorf("%d goroutines after the soak, %d after a start", old, fresh)
	} else {
		t.Logf("soak: %d goroutines, %d after a start", old, fresh)
	}
	w.waitUp()
}

// goroutines counts those of the edge, which dies of it.
func goroutines(t *testing.T, s *site) (n int) {
	t.Helper()
	from := len(s.log())
	pid := s.pid("edge")
	if err := syscall.Kill(pid, syscall.SIGQUIT); err != nil {
		t.Fatal(err)
	}
	eventually(t, 5*time.Second, "edge quits and is back", func() error {
		if now := s.pid("edge"); now == pid || gone(pid) != nil || gone(now) == nil {
			return errors.New("no new edge")
		}
		return nil
	})
	text, err := os.ReadFile(s.logFile())
	if err != nil {
		t.Fatal(err)
	}
	n = bytes.Count(text[from:], []byte("\ngoroutine "))
	if n == 0 {
		t.Error("no traceback in the log")
	}
	// The traceback would hide the end of the log that a failure shows.
	kept := slices.DeleteFunc(strings.Split(string(text[from:]), "\n"), func(l string) bool { return !strings.HasPrefix(l, "time=") })
	if err := os.WriteFile(s.logFile(), append(text[:from], []byte(strings.Join(kept, "\n")+"\n")...), 0o600); err != nil {
		t.Fatal(err)
	}
	return n
}
