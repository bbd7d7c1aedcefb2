package probe_test

import (
	"container/heap"
	"math/rand/v2"
	"time"

	"patronus/netstack/path"
	"patronus/netstack/probe"
)

// sim is a discrete-event simulation of paths between two sites: every packet
// of both directions, with a clock of its own.
type sim struct {
	now    time.Time
	events events
	n      int
	rng    *rand.Rand
}

type event struct {
	at time.Time
	n  int
	fn func()
}

type events []event

func (e events) Len() int { return len(e) }
func (e events) Less(i, j int) bool {
	return e[i].at.Before(e[j].at) || e[i].at.Equal(e[j].at) && e[i].n < e[j].n
}
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)   { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	old := *e
	x := old[len(old)-1]
	*e = old[:len(old)-1]
	return x
}

func newSim(seed uint64) *sim {
	return &sim{now: time.Unix(1_800_000_000, 0), rng: rand.New(rand.NewPCG(seed, 7))}
}

func (s *sim) after(d time.Duration, fn func()) { s.at(s.now.Add(d), fn) }

func (s *sim) at(t time.Time, fn func()) {
	s.n++
	heap.Push(&s.events, event{at: t, n: s.n, fn: fn})
}

func (s *sim) run(d time.Duration) {
	end := s.now.Add(d)
	for len(s.events) > 0 && !s.events[0].at.After(end) {
		e := heap.Pop(&s.events).(event)
		s.now = e.at
		e.fn()
	}
	s.now = end
}

// link is one direction of a path.
type link struct {
	delay, jitter time.Duration
	loss, reorder float64
	down          bool
	sent, lost    uint64 // the truth
}

// end is one side of a path: what the engine does around a session.
type end struct {
	*sim
	link    *link // towards the peer
	peer    *end
	sess    *probe.Session
	tr      *path.Tracker
	in      *probe.InBand
	refl    probe.ReflectorState
	epoch   uint32
	index   uint32 // receiver index of our packets at the peer
	tx      uint64
	counter uint64
	bytes   uint64
	skew    time.Duration // of this end's clock
	plain   bool          // reflects the standard's TLVs only
	silent  bool          // sends no data

	timer       time.Time
	transitions []path.Transition
	samples     []path.Sample
	notices     []probe.Notice
	onChange    func()
}

func (s *sim) path(name string, out, in *link, o probe.Options) (a, b *end) {
	mk := func(l *link, id path.ID, epoch uint32) *end {
		o.SSID++
		e := &end{
			sim: s, link: l, tr: path.NewTracker(id, path.Options{Uplink: name}),
			in: probe.NewInBand(), epoch: epoch, index: epoch, onChange: func() {},
			skew: time.Duration(o.SSID-1) * 1234567 * time.Second,
		}
		e.sess = probe.NewSession(o, e.clock())
		return e
	}
	e := path.NewID("a", name, "b", name)
	a, b = mk(out, e, 11), mk(in, path.NewID("b", name, "a", name), 22)
	a.peer, b.peer = b, a
	a.start()
	b.start()
	return a, b
}

func (e *end) start() {
	e.wake()
	var tick func()
	tick = func() {
		e.tr.ObserveBytes(e.bytes, e.peer.bytes)
		st := e.in.Stats()
		e.tr.ObserveReceived(st.Reordered, st.Duplicates)
		smp, tr := e.tr.Tick(e.clock())
		e.samples = append(e.samples, smp)
		e.note(tr)
		e.onChange()
		e.after(time.Second, tick)
	}
	e.after(time.Second, tick)
}

// wake sets the prober's timer.
func (e *end) wake() {
	due := e.sess.Due()
	if !due.IsZero() {
		due = due.Add(-e.skew)
	}
	if due.IsZero() || !e.timer.IsZero() && !due.Before(e.timer) {
		return
	}
	if due.Before(e.now) {
		due = e.now
	}
	e.timer = due
	e.at(due, func() {
		if !e.timer.Equal(due) {
			return
		}
		e.timer = time.Time{}
		e.probe()
		e.wake()
	})
}

func (e *end) probe() {
	for _, p := range e.sess.Expire(e.clock(), nil) {
		e.note(e.tr.Observe(p, e.clock()))
	}
	if r, ok := e.sess.Next(e.clock(), e.counts()); ok {
		b := probe.AppendRequest(nil, r)
		e.send(b, true)
	} else if e.sess.Rate(e.clock()) == probe.RateCold {
		e.note(e.tr.Cold(e.clock()))
	}
}

func (e *end) counts() probe.Counts {
	s := e.in.Stats()
	return probe.Counts{
		Epoch: e.epoch, Tx: e.tx, Rx: s.Received,
		Missing: s.Missing, Reordered: s.Reordered, Duplicates: s.Duplicates,
	}
}

func (e *end) clock() time.Time { return e.now.Add(e.skew) }

func (e *end) note(tr *path.Transition) {
	if tr != nil {
		t := *tr
		t.At = t.At.Add(-e.skew)
		e.transitions = append(e.transitions, t)
		e.onChange()
	}
}

// send puts a packet into the path: data if b is nil.
func (e *end) send(b []byte, request bool) {
	e.tx++
	switch {
	case b == nil:
		e.bytes += 1000
	case request:
		probe.StampRequest(b, e.clock(), e.tx)
	default:
		probe.StampReply(b, e.clock(), e.tx)
	}
	counter, index := e.counter, e.index
	e.counter++
	l := e.link
	l.sent++
	if l.down || e.rng.Float64() < l.loss {
		l.lost++
		return
	}
	d := l.delay
	if l.jitter > 0 {
		d += time.Duration(e.rng.Int64N(int64(l.jitter)))
	}
	if e.rng.Float64() < l.reorder {
		d += 5*time.Millisecond + time.Duration(e.rng.Int64N(int64(20*time.Millisecond)))
	}
	e.after(d, func() { e.peer.receive(index, counter, b, request) })
}

func (e *end) receive(index uint32, counter uint64, b []byte, request bool) {
	e.in.Observe(index, counter)
	switch {
	case b == nil:
	case request:
		var r probe.Received
		if err := probe.ParseRequest(b, &r); err != nil {
			panic(err)
		}
		e.notices = append(e.notices, r.Notices()...)
		if !e.plain {
			if at, ok := e.sess.Heard(&r, e.clock()); ok {
				e.tr.Alive(at)
			}
		}
		reply, err := probe.Reflect(nil, b, e.counts(), e.clock(), e.clock(), 64, &e.refl)
		if err != nil {
			panic(err)
		}
		if e.plain { // as a reflector that does not know our counters
			reply[probe.BaseLen+16] = 0x80
		}
		e.after(100*time.Microsecond, func() { e.send(reply, false) })
	default:
		res, ok := e.sess.OnReply(b, e.clock(), e.counts())
		if !ok || res.Duplicate {
			return
		}
		if res.HasCounts {
			e.tr.ObserveCounts(res.Counts, e.clock())
		}
		e.note(e.tr.Observe(res.Probe, e.clock()))
	}
	e.wake()
}

// traffic sends data at a steady rate until stopped.
func (e *end) traffic(pps int) {
	gap := time.Second / time.Duration(pps)
	var next func()
	next = func() {
		if !e.silent {
			e.sess.Carried(e.clock(), e.clock())
			e.wake()
			e.send(nil, false)
		}
		e.after(gap, next)
	}
	e.after(time.Duration(e.rng.Int64N(int64(gap))), next)
}

// downAt is when the end first said Down after t.
func (e *end) downAt(t time.Time) (time.Time, bool) { return e.reached(path.Down, t) }

func (e *end) reached(s path.State, t time.Time) (time.Time, bool) {
	for _, tr := range e.transitions {
		if tr.To == s && tr.At.After(t) {
			return tr.At, true
		}
	}
	return time.Time{}, false
}
