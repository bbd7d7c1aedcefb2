package namespace

import (
	"testing"
	"time"
)

// Bars of the failover tests. The short set runs on machines that are busy with
// other tests, and only asserts that traffic comes back soon; the long set
// asserts the product's promise.
const (
	shortRuns, longRuns = 2, 15 // of each family
	shortBar            = time.Second
	blackHoleBar        = 300 * time.Millisecond // + RTT
	carrierBar          = 200 * time.Millisecond
)

// streamRate is the UDP stream's rate each way, packets a second.
const streamRate = 1000

func runs() int {
	if long() {
		return longRuns
	}
	return shortRuns
}

// outages breaks the uplink that a flow uses and repairs it again, n times, and
// returns how long the stream was interrupted each time, the worse direction.
func outages(t *testing.T, w *world, st *stream, port uint16, n int, fail, repair func(uplink string)) distribution {
	t.Helper()
	a := w.site("a")
	var d distribution
	for i := range n {
		// A flow is moved off the cycle of probes and samples by chance: the
		// phase of the cut is not ours to choose.
		uplink := a.uplinkOf("UDP", port)
		m := st.mark()
		fail(uplink)
		cut := st.mark()
		gap := st.recovered(t, mark{at: m.at, sent: cut.sent}, 200, 10*time.Second)
		if now := a.uplinkOf("UDP", port); now == uplink {
			t.Errorf("run %d: the flow is still on %s", i, uplink)
		}
		repair(uplink)
		w.waitUp()
		d = append(d, gap)
	}
	return d
}

func TestBlackHole(t *testing.T) {
	var all distribution
	var longest time.Duration
	for _, f := range families {
		t.Run("underlay="+f.String(), func(t *testing.T) {
			w := newWorld(t, plan{underlay: f})
			a, b := w.site("a"), w.site("b")
			const port = 5001
			tcp := newEcho(t, a, b, f)
			st := newStream(t, a, b, f, port, streamRate)
			d := outages(t, w, st, port, runs(),
				func(u string) { w.cut(a, u) }, func(u string) { w.heal(a, u) })
			tcp.alive(t, 20, 10*time.Second)
			tcp.stop(t)
			longest = max(longest, delay(t, a))
			t.Logf("black hole, overlay and underlay %v: %v", f, d)
			all = append(all, d...)
		})
	}
	t.Logf("black hole: %v, RTT %v", all, longest)
	judge(t, all, blackHoleBar+longest)
}

func TestCarrierLoss(t *testing.T) {
	var all distribution
	for _, f := range families {
		t.Run("underlay="+f.String(), func(t *testing.T) {
			w := newWorld(t, plan{underlay: f})
			a, b := w.site("a"), w.site("b")
			const port = 5002
			tcp := newEcho(t, a, b, f)
			st := newStream(t, a, b, f, port, streamRate)
			d := outages(t, w, st, port, runs(),
				func(u string) { w.carrier(a, u, false) }, func(u string) { w.carrier(a, u, true) })
			tcp.alive(t, 20, 10*time.Second)
			tcp.stop(t)
			t.Logf("carrier loss, overlay and underlay %v: %v", f, d)
			all = append(all, d...)
		})
	}
	t.Logf("carrier loss: %v", all)
	judge(t, all, carrierBar)
}

// judge asserts the bar of the set that runs.
func judge(t *testing.T, d distribution, bar time.Duration) {
	t.Helper()
	if !long() {
		bar = shortBar
	}
	if len(d) == 0 {
		return // the subtests have said why
	}
	measured(t, "outage p99", d.at(99), bar)
}

// delay is the longest round trip that a site has measured on a path.
func delay(t *testing.T, s *site) time.Duration {
	t.Helper()
	paths, err := s.paths()
	if err != nil {
		t.Fatal(err)
	}
	var worst time.Duration
	for i := range paths {
		if ms := float64(paths[i].Metrics.Latency); ms > 0 { // not NaN
			worst = max(worst, time.Duration(ms*float64(time.Millisecond)))
		}
	}
	return worst
}
