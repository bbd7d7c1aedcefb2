package path_test

import (
	"math"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"patronus/netstack/path"
)

var t0 = time.Unix(1_800_000_000, 0)

// feed gives a tracker one second of 20 probes and a tick, with counters that
// lose the given share of 1,000 packets each way.
type feed struct {
	tr  *path.Tracker
	now time.Time
	c   path.Counts
}

func newFeed() *feed {
	return &feed{tr: path.NewTracker("a.w~b.w", path.Options{Uplink: "w"}), now: t0}
}

func (f *feed) second(rtt time.Duration, out, in float64) (path.Sample, *path.Transition) {
	var last *path.Transition
	for range 20 {
		f.c.Tx += 50
		f.c.PeerTx += 50
		f.c.PeerRx += 50 - uint64(50*out)
		f.c.Rx += 50 - uint64(50*in)
		f.tr.ObserveCounts(f.c, f.now)
		if tr := f.tr.Observe(path.Probe{SentAt: f.now, RTT: rtt}, f.now); tr != nil {
			last = tr
		}
		f.now = f.now.Add(50 * ms)
	}
	s, tr := f.tr.Tick(f.now)
	if tr != nil {
		last = tr
	}
	return s, last
}

func (f *feed) lose(n int) *path.Transition {
	var last *path.Transition
	for range n {
		f.now = f.now.Add(50 * ms)
		if tr := f.tr.Observe(path.Probe{SentAt: f.now, Lost: true}, f.now); tr != nil {
			last = tr
		}
	}
	return last
}

func TestTrackerStates(t *testing.T) {
	f := newFeed()
	if s, tr := f.tr.Tick(f.now); s.State != path.Unknown || s.Score != path.NoScore || tr != nil {
		t.Fatalf("fresh: %+v, %+v", s, tr)
	}
	_, tr := f.second(10*ms, 0, 0)
	if tr == nil || tr.From != path.Unknown || tr.To != path.Up || tr.Cause != path.CauseReplies {
		t.Fatalf("first reply: %+v", tr)
	}
	if tr := f.lose(2); tr != nil || f.tr.MissedInRow() != 2 {
		t.Fatalf("two missing: %+v", tr)
	}
	tr = f.lose(1)
	if tr == nil || tr.To != path.Down || tr.Cause != path.CauseMissing || !tr.At.Equal(f.now) {
		t.Fatalf("three missing: %+v", tr)
	}
	if s, _ := f.tr.Tick(f.now); s.Score != 0 || s.Classes[0].Score != 0 {
		t.Errorf("down scores %d", s.Score)
	}
	reply := func() *path.Transition {
		f.now = f.now.Add(50 * ms)
		return f.tr.Observe(path.Probe{SentAt: f.now, RTT: 10 * ms}, f.now)
	}
	if first, second := reply(), reply(); first != nil || second != nil {
		t.Fatal("up after fewer than three replies")
	}
	f.lose(1)
	if first, second := reply(), reply(); first != nil || second != nil {
		t.Fatal("replies not in a row brought it up")
	}
	if tr := reply(); tr == nil || tr.To != path.Up {
		t.Fatalf("three replies in a row: %+v", tr)
	}
	if tr := f.tr.Cold(f.now); tr == nil || tr.To != path.Unknown || tr.Cause != path.CauseCold {
		t.Fatalf("cold: %+v", tr)
	}
	if s, _ := f.tr.Tick(f.now); s.Score != path.NoScore || s.Quality.Measured() {
		t.Errorf("a cold path remembers %+v", s.Quality)
	}
}

// One of three is enough to be alive: answered later, answered out of order, or
// vouched for by the peer.
func TestMissingInRowOnly(t *testing.T) {
	at := func(n int) time.Time { return t0.Add(time.Duration(n) * 50 * ms) }
	lost := func(tr *path.Tracker, n int) *path.Transition {
		return tr.Observe(path.Probe{SentAt: at(n), Lost: true}, at(n+1))
	}
	up := func() *path.Tracker {
		tr := path.NewTracker("a.w~b.w", path.Options{})
		tr.Observe(path.Probe{SentAt: at(0), RTT: ms}, at(0))
		return tr
	}
	tr := up()
	tr.Observe(path.Probe{SentAt: at(4), RTT: ms}, at(5))
	for _, n := range []int{1, 2, 3} { // older than an answered one
		if lost(tr, n) != nil || tr.MissedInRow() != 0 {
			t.Error("overtaken losses count")
		}
	}
	tr = up()
	lost(tr, 1)
	lost(tr, 2)
	tr.Observe(path.Probe{SentAt: at(2), RTT: 60 * ms, Late: true}, at(4))
	if tr.MissedInRow() != 0 || lost(tr, 3) != nil {
		t.Error("a late reply is no sign of life")
	}
	tr = up()
	lost(tr, 1)
	lost(tr, 2)
	tr.Alive(at(1))
	if tr.MissedInRow() != 1 || lost(tr, 3) != nil {
		t.Error("the peer's word is no sign of life")
	}
	if got := lost(tr, 4); got == nil || got.To != path.Down {
		t.Error("the peer's word covers later probes")
	}
	tr = up()
	for n := range 5 {
		if tr.Observe(path.Probe{SentAt: at(n + 1), Lost: true, Extra: true}, at(n+2)) != nil {
			t.Error("extra probes count")
		}
	}
}

func TestCarrierAndNotice(t *testing.T) {
	f := newFeed()
	f.second(10*ms, 0, 0)
	if tr := f.tr.Carrier(false, f.now); tr == nil || tr.Cause != path.CauseCarrier || tr.To != path.Down {
		t.Fatalf("%+v", tr)
	}
	if _, tr := f.second(10*ms, 0, 0); tr != nil {
		t.Fatalf("replies in flight overruled the carrier: %+v", tr)
	}
	f.tr.Carrier(true, f.now)
	if _, tr := f.second(10*ms, 0, 0); tr == nil || tr.To != path.Up {
		t.Fatalf("carrier is back: %+v", tr)
	}
	if tr := f.tr.PeerNotice(false, f.now); tr == nil || tr.Cause != path.CausePeer {
		t.Fatalf("%+v", tr)
	}
	if _, tr := f.second(10*ms, 0, 0); tr != nil {
		t.Fatalf("replies in flight overruled the peer: %+v", tr)
	}
	f.second(10*ms, 0, 0)
	if _, tr := f.second(10*ms, 0, 0); tr == nil || tr.To != path.Up {
		t.Fatalf("a lost notice blocks the path for ever: %+v", tr)
	}
	f.tr.PeerNotice(false, f.now)
	f.tr.PeerNotice(true, f.now)
	if _, tr := f.second(10*ms, 0, 0); tr == nil || tr.To != path.Up {
		t.Fatalf("alive notice: %+v", tr)
	}
}

// Degraded needs two bad seconds and ends after five good ones; the fast rule
// needs one.
func TestHysteresis(t *testing.T) {
	f := newFeed()
	for range 15 {
		f.second(20*ms, 0, 0)
	}
	if _, tr := f.second(20*ms, 0.08, 0); tr != nil {
		t.Fatalf("one bad second: %+v", tr)
	}
	if s, tr := f.second(20*ms, 0.08, 0); tr == nil || tr.To != path.Degraded || tr.Cause != path.CauseViolation || !s.Classes[0].Violates {
		t.Fatalf("two bad seconds: %+v", tr)
	}
	good := 0
	for ; f.tr.State() == path.Degraded && good < 60; good++ {
		f.second(20*ms, 0, 0)
	}
	if good < 5 || good > 16 {
		t.Errorf("recovered after %d good seconds", good)
	}
	for range 15 {
		f.second(20*ms, 0, 0)
	}
	if s, _ := f.second(20*ms, 0, 0.3); !s.Classes[0].Violates {
		t.Error("30 % loss for a second: the fast rule did not act")
	}
	g := newFeed()
	for range 15 {
		g.second(30*ms, 0, 0)
	}
	if s, _ := g.second(140*ms, 0, 0); !s.Classes[0].Violates || s.Classes[3].Violates {
		t.Errorf("delay x4 for a second: %+v", s.Classes)
	}
}

// Loss that the sample cannot prove moves nothing.
func TestFewPacketsProveNothing(t *testing.T) {
	f := newFeed()
	f.second(20*ms, 0, 0)
	gen := f.tr.Generation()
	for range 20 { // 1 of 21 packets: 4.8 %, over voice's 3 %
		f.c.Tx, f.c.PeerTx, f.c.Rx, f.c.PeerRx = f.c.Tx+2, f.c.PeerTx+2, f.c.Rx+2, f.c.PeerRx+2
		f.tr.ObserveCounts(f.c, f.now)
		f.tr.Observe(path.Probe{SentAt: f.now, RTT: 20 * ms}, f.now)
		f.now = f.now.Add(time.Second)
		f.tr.Tick(f.now)
	}
	f.c.Tx++
	f.c.PeerTx, f.c.Rx = f.c.PeerTx+1, f.c.Rx+1
	f.tr.ObserveCounts(f.c, f.now)
	for range 3 {
		f.now = f.now.Add(time.Second)
		s, _ := f.tr.Tick(f.now)
		if s.Quality.LossOut.Percent < 3 || s.Classes[0].Violates {
			t.Errorf("loss %+v violates %v", s.Quality.LossOut, s.Classes[0].Violates)
		}
	}
	if f.tr.Generation() != gen {
		t.Error("steering was told to look again")
	}
}

// Settled, Floor and Ceil speak of the last 30 s.
func TestStanding(t *testing.T) {
	f := newFeed()
	for i := range 31 {
		c := f.tr.Candidate(3)
		if st := c.Class[0]; i < 30 && (st.Settled || st.Floor != path.NoScore) {
			t.Fatalf("after %d s: %+v", i, st)
		}
		f.second(97*ms, 0, 0)
	}
	c := f.tr.Candidate(3)
	if st := c.Class[0]; c.Index != 3 || !st.Settled || st.Floor != 90 || st.Ceil != 90 || st.Violates {
		t.Fatalf("%+v", st)
	}
	f.lose(3)
	if st := f.tr.Candidate(3).Class[0]; st.Settled || st.Floor != path.NoScore || st.Score != 0 {
		t.Fatalf("down: %+v", st)
	}
}

// Delay, PDV and jitter of known series.
func TestQualityFigures(t *testing.T) {
	tr := path.NewTracker("a.w~b.w", path.Options{})
	now := t0
	var j float64
	var want []time.Duration
	for i := range 200 { // 20 to 39 ms
		rtt := time.Duration(20+i*7%20) * ms
		want = append(want, rtt)
		out := rtt/2 + time.Hour // an offset of the peer's clock
		tr.Observe(path.Probe{SentAt: now, RTT: rtt, Out: out, In: 5*ms - time.Hour, Timed: true}, now)
		if i > 0 {
			j += (math.Abs(float64(want[i]/2-want[i-1]/2)) - j) / 16
		}
		now = now.Add(50 * ms)
	}
	tr.SetMTU(1420)
	tr.ObserveBytes(1000, 500)
	tr.ObserveReceived(5, 1)
	tr.Tick(now)
	tr.ObserveBytes(126_000, 500)
	tr.ObserveReceived(9, 1)
	now = now.Add(time.Second)
	s, _ := tr.Tick(now)
	slices.Sort(want)
	q := tr.Window(path.SlowWindow, now)
	if q.Samples != 200 || q.Delay != 29500*time.Microsecond || q.PDVp95 != want[189]-want[0] {
		t.Errorf("%+v", q)
	}
	if d := (q.Jitter3550 - time.Duration(j)).Abs(); d > time.Microsecond {
		t.Errorf("jitter %v, want %v", q.Jitter3550, time.Duration(j))
	}
	if math.Abs(s.Quality.TxRate-1e6/11) > 1 || // since the first reply, 11 s
		s.Quality.RxRate != 0 || s.Quality.Reorder != 4 || s.Quality.Dup != 0 || s.Quality.MTU != 1420 {
		t.Errorf("%+v", s.Quality)
	}
}

// However packets in flight are cut by the probes, the total is right in the end.
func TestLossDoesNotDrift(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		tr := path.NewTracker("a.w~b.w", path.Options{})
		var sent, lost, late uint64
		c := path.Counts{Epoch: 1}
		tr.ObserveCounts(c, t0)
		tr.Observe(path.Probe{SentAt: t0}, t0)
		tr.Tick(t0)
		for range rapid.IntRange(1, 100).Draw(t, "replies") {
			n := rapid.Uint64Range(0, 100).Draw(t, "sent")
			l := rapid.Uint64Range(0, n).Draw(t, "lost")
			next := rapid.Uint64Range(0, n-l).Draw(t, "overtaken") // by the probe
			sent, lost = sent+n, lost+l
			c.Tx += n
			c.PeerRx += n - l - next + late
			late = next
			tr.ObserveCounts(c, t0)
		}
		c.PeerRx += late
		tr.ObserveCounts(c, t0)
		q := tr.Window(path.SlowWindow, t0.Add(time.Second))
		if q.LossOut.Total != sent || q.LossOut.Lost != lost && sent > 0 {
			t.Fatalf("%+v, truth %d of %d", q.LossOut, lost, sent)
		}
	})
}

func TestCountersStartOver(t *testing.T) {
	tr := path.NewTracker("a.w~b.w", path.Options{})
	for _, c := range []path.Counts{
		{Tx: 1000, PeerRx: 990, PeerTx: 500, Rx: 500, Epoch: 1},
		{Tx: 1100, PeerRx: 1090, PeerTx: 600, Rx: 600, Epoch: 1},
		{Tx: 1200, PeerRx: 5, PeerTx: 5, Rx: 700, Epoch: 2},
		{Tx: 1300, PeerRx: 105, PeerTx: 105, Rx: 800, Epoch: 2},
		{Tx: 1400, PeerRx: 1, PeerTx: 205, Rx: 900, Epoch: 2}, // back without an epoch
		{Tx: 1500, PeerRx: 91, PeerTx: 305, Rx: 1000, Epoch: 2},
	} {
		tr.ObserveCounts(c, t0)
	}
	q := tr.Window(path.SlowWindow, t0)
	if q.LossOut.Total != 300 || q.LossOut.Lost != 10 || q.LossIn.Total != 300 || q.LossIn.Lost != 0 {
		t.Errorf("%+v %+v", q.LossOut, q.LossIn)
	}
}

func BenchmarkTick(b *testing.B) {
	f := newFeed()
	for range 60 {
		f.second(20*ms, 0.02, 0)
	}
	b.ReportAllocs()
	for b.Loop() {
		f.second(20*ms, 0.02, 0)
	}
}
