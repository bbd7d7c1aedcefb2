package path

import (
	"time"
)

// Probe is the fate of one probe. Probes may be reported in any order; each is
// reported answered or Lost once, and a Lost one once more, as Late, if its reply
// comes after all.
type Probe struct {
	SentAt time.Time
	// RTT is (T4-T1)-(T3-T2).
	RTT time.Duration
	// Out and In are T2-T1 and T4-T3: transit times with an unknown but steady
	// clock offset, good for their differences only. They are used if Timed.
	Out, In time.Duration
	Timed   bool
	Lost    bool
	Late    bool
	// Extra probes were sent to measure loss sooner; missing ones do not
	// count towards Down.
	Extra bool
}

// Counts are cumulative packet counts at both ends, read so that they belong
// together: Tx when a probe left, PeerRx when it arrived, PeerTx when its reply
// left, Rx when that arrived. They count all packets of the path, probes included.
type Counts struct {
	Tx, PeerRx, PeerTx, Rx uint64
	// Epoch changes when either side's counters start over.
	Epoch uint64
}

// Options are what a tracker needs to know beforehand.
type Options struct {
	// Classes are judged each tick; nil means the built-in ones.
	Classes *Classes
	// Uplink is the local uplink, for the classes' preferences.
	Uplink string
	// Lost is the number of probes missing in a row that mean Down; 0 means 3.
	Lost int
}

// Figures of the state machine.
const (
	defaultLost = 3
	upReplies   = 3  // replies in a row that end Down
	badTicks    = 2  // violating ticks before a class is said to violate
	goodTicks   = 5  // good ticks before it no longer is
	settleTicks = 30 // ticks of a settled path: 30 s
	maxRun      = 16
	// latchTime is how long replies cannot overrule a Down that was announced:
	// it covers what was in flight.
	latchTime = 2 * time.Second
	// The fast rule.
	fastLoss        = 20.0 // percent
	fastDelayFactor = 3
	fastDelayMin    = 20 * time.Millisecond // more than the baseline
	fastSamples     = 5
)

// Tracker turns observations of one path into its state, quality and standing.
// It is not safe for concurrent use: the goroutine that ticks it owns it.
type Tracker struct {
	id      ID
	classes *Classes
	uplink  string
	lost    int

	state   State
	cause   Cause // of state
	damper  Damper
	noLink  bool      // carrier loss here
	latched time.Time // Down was announced; replies count from here on
	upAt    time.Time // when it last came up: what was lost before is settled

	answered time.Time // SentAt of the newest answered probe
	alive    time.Time // newest time for which another proof of life exists
	missing  [maxRun]time.Time
	run      int // missing in a row, newer than answered and alive
	good     int // replies in a row

	cum      totals
	counts   Counts // last seen, if counted
	counted  bool
	bytes    pair
	received pair

	marks   marks
	rtts    rtts
	out, in jitter
	mtu     int

	quality Quality
	fast    Quality // the fast window of the last tick
	judged  []judged
	gen     uint32
}

// pair holds two cumulative values last seen.
type pair struct {
	a, b uint64
	ok   bool
}

// next returns how far both have come; nothing at first or after they went back.
func (p *pair) next(a, b uint64) (da, db uint64) {
	if p.ok && a >= p.a && b >= p.b {
		da, db = a-p.a, b-p.b
	}
	*p = pair{a: a, b: b, ok: true}
	return da, db
}

// NewTracker starts a path as Unknown.
func NewTracker(id ID, o Options) *Tracker {
	t := &Tracker{id: id, classes: o.Classes, uplink: o.Uplink, lost: o.Lost}
	if t.classes == nil {
		t.classes, _ = NewClasses(nil) // the built-in classes compile: tested
	}
	if t.lost <= 0 {
		t.lost = defaultLost
	}
	t.lost = min(t.lost, maxRun)
	t.SetClasses(t.classes)
	return t
}

// SetClasses replaces the classes after a reload; standings start over.
func (t *Tracker) SetClasses(cs *Classes) {
	t.classes = cs
	t.judged = make([]judged, cs.Len())
	for i := range t.judged {
		j := &t.judged[i]
		j.Score, j.Floor, j.Ceil, j.Rank = NoScore, NoScore, NoScore, minRank
		j.Group = cs.Class(ClassID(i)).Group(t.uplink)
	}
	t.gen++
}

// ID is the path's id.
func (t *Tracker) ID() ID { return t.id }

// State is the state now.
func (t *Tracker) State() State { return t.state }

// MissedInRow is the number of probes missing since the last sign of life.
func (t *Tracker) MissedInRow() int { return t.run }

// Generation changes whenever steering may have to look again: the state, a
// violation, a suppression or a settling changed.
func (t *Tracker) Generation() uint32 { return t.gen }

// SetMTU notes the path's inner MTU, bytes.
func (t *Tracker) SetMTU(mtu int) { t.mtu = mtu }

// Observe takes the fate of one probe. It returns a transition if that changed
// the state: Down comes from here, at once.
func (t *Tracker) Observe(p Probe, now time.Time) *Transition {
	if p.Lost {
		return t.observeLost(p, now)
	}
	if p.Late {
		t.cum.missed--
	} else {
		t.cum.probes++
	}
	t.rtts.add(now, p.RTT)
	if p.Timed {
		t.out.add(p.Out)
		t.in.add(p.In)
	} else {
		t.out.add(p.RTT)
	}
	if p.SentAt.After(t.answered) {
		t.answered = p.SentAt
	}
	t.forgive(p.SentAt)
	t.good++
	switch t.state {
	case Unknown:
		if !t.noLink {
			return t.move(Up, CauseReplies, now)
		}
	case Down:
		if t.good >= upReplies && !t.noLink && p.SentAt.After(t.latched) {
			return t.move(Up, CauseReplies, now)
		}
	case Up, Degraded:
	}
	return nil
}

func (t *Tracker) observeLost(p Probe, now time.Time) *Transition {
	t.cum.probes++
	t.cum.missed++
	if p.Extra || !p.SentAt.After(t.answered) || !p.SentAt.After(t.alive) {
		return nil // lost alone: the path was alive after it
	}
	t.good = 0
	if t.run < maxRun {
		t.missing[t.run] = p.SentAt
		t.run++
	}
	if t.run >= t.lost && t.state != Down {
		return t.move(Down, CauseMissing, now)
	}
	return nil
}

// Alive takes other proof that the path carried a packet of ours, sent at or
// before sentAt, and that we heard of it over the path: probes sent until then
// are lost, but do not count towards Down.
func (t *Tracker) Alive(sentAt time.Time) {
	if sentAt.After(t.alive) {
		t.alive = sentAt
		t.forgive(sentAt)
	}
}

// forgive drops the missing probes that were sent at or before at.
func (t *Tracker) forgive(at time.Time) {
	n := 0
	for _, m := range t.missing[:t.run] {
		if m.After(at) {
			t.missing[n] = m
			n++
		}
	}
	t.run = n
}

// Carrier takes the local uplink's link state.
func (t *Tracker) Carrier(up bool, now time.Time) *Transition {
	t.noLink = !up
	if up || t.state == Down {
		return nil
	}
	t.good = 0
	return t.move(Down, CauseCarrier, now)
}

// PeerNotice takes the peer's word about its uplink. Dead means Down at once;
// alive lets replies count again.
func (t *Tracker) PeerNotice(alive bool, now time.Time) *Transition {
	if alive {
		t.latched = time.Time{}
		return nil
	}
	t.latched = now.Add(latchTime)
	t.good = 0
	if t.state == Down {
		return nil
	}
	return t.move(Down, CausePeer, now)
}

// Cold says that the path is no longer probed: it becomes Unknown, whatever it
// was, and its measurements are forgotten.
func (t *Tracker) Cold(now time.Time) *Transition {
	t.run, t.good = 0, 0
	t.marks.reset()
	t.rtts.reset()
	t.out, t.in = jitter{}, jitter{}
	t.cum, t.counted, t.bytes, t.received = totals{}, false, pair{}, pair{}
	t.quality, t.fast = Quality{}, Quality{}
	t.SetClasses(t.classes)
	if t.state == Unknown {
		return nil
	}
	return t.move(Unknown, CauseCold, now)
}

// ObserveCounts takes the counters that came with a reply. What was sent
// between two replies and did not arrive is lost; packets in flight or overtaken
// correct themselves with the next reply. Call it before Observe of the same reply.
// If the Epoch changes or a counter goes
// back, counting starts over from there.
func (t *Tracker) ObserveCounts(c Counts, _ time.Time) {
	b, counted := t.counts, t.counted
	t.counts, t.counted = c, true
	if !counted || c.Epoch != b.Epoch || c.Tx < b.Tx || c.PeerRx < b.PeerRx || c.PeerTx < b.PeerTx || c.Rx < b.Rx {
		return
	}
	t.cum.out.total += int64(c.Tx - b.Tx)
	t.cum.out.lost += int64(c.Tx-b.Tx) - int64(c.PeerRx-b.PeerRx)
	t.cum.in.total += int64(c.PeerTx - b.PeerTx)
	t.cum.in.lost += int64(c.PeerTx-b.PeerTx) - int64(c.Rx-b.Rx)
}

// ObserveBytes takes the cumulative bytes that the path carried each way. A
// value that goes back starts over.
func (t *Tracker) ObserveBytes(tx, rx uint64) {
	dtx, drx := t.bytes.next(tx, rx)
	t.cum.txBytes += dtx
	t.cum.rxBytes += drx
}

// ObserveReceived takes the receiver's cumulative counts of reordered and
// duplicate packets.
func (t *Tracker) ObserveReceived(reordered, duplicates uint64) {
	dr, dd := t.received.next(reordered, duplicates)
	t.cum.reorder += dr
	t.cum.dup += dd
}

// Tick closes a second: it judges the classes and returns the path's sample,
// and a transition if judging changed the state.
func (t *Tracker) Tick(now time.Time) (Sample, *Transition) {
	t.rtts.trim(now)
	t.quality = t.Window(NormalWindow, now)
	suppressed := t.damper.suppressed
	if t.damper.Suppressed(now) != suppressed {
		t.gen++
	}
	var tr *Transition
	if t.state == Up || t.state == Degraded {
		t.judge(now)
		bad := t.judged[t.classes.Default()].Violates
		switch {
		case bad && t.state == Up:
			tr = t.move(Degraded, CauseViolation, now)
		case !bad && t.state == Degraded:
			tr = t.move(Up, CauseRecovered, now)
		}
	} else {
		t.unjudge()
	}
	s := t.sample(now)
	t.marks.push(now, t.cum)
	return s, tr
}

// move changes the state.
func (t *Tracker) move(to State, c Cause, now time.Time) *Transition {
	tr := &Transition{Path: t.id, From: t.state, To: to, Cause: c, At: now}
	if to == Up && t.state != Degraded {
		t.upAt = now
		t.marks.push(now, t.cum)
		t.fast = Quality{}
	}
	if to == Down {
		t.damper.Flap(now)
		for i := range t.judged {
			j := &t.judged[i]
			j.settled, j.n = 0, 0
			j.Settled, j.Floor, j.Ceil = false, NoScore, NoScore
		}
	}
	tr.Suppressed = t.damper.suppressed
	t.state, t.cause = to, c
	t.gen++
	return tr
}

// Candidate is the path's entry in a steering snapshot. It allocates and shares
// nothing with the tracker.
func (t *Tracker) Candidate(index int) Candidate {
	c := Candidate{
		Index: index, ID: t.id, Uplink: t.uplink, State: t.state, Suppressed: t.damper.suppressed,
		Class: make([]Standing, len(t.judged)),
	}
	for i := range t.judged {
		c.Class[i] = t.judged[i].Standing
		switch t.state {
		case Down:
			c.Class[i].Score = 0
		case Unknown:
			c.Class[i].Score = NoScore
		case Up, Degraded:
		}
	}
	return c
}

// Window is the quality over the last d, at most [SlowWindow].
func (t *Tracker) Window(d time.Duration, now time.Time) Quality {
	q := Quality{At: now, MTU: t.mtu}
	q.Delay, q.PDVp95, q.Samples = t.rtts.stats(now, d)
	if t.out.has {
		q.Jitter3550 = time.Duration(max(t.out.value, t.in.value))
	}
	m, ok := t.marks.since(now, d)
	if !ok {
		m.at = now
	}
	missed, probes := t.cum.missed-m.missed, t.cum.probes-m.probes
	q.LossOut = lossOf(t.cum.out, m.out, missed, probes, int64(t.run))
	q.LossIn = lossOf(t.cum.in, m.in, missed, probes, int64(t.run))
	q.Reorder, q.Dup = t.cum.reorder-m.reorder, t.cum.dup-m.dup
	if dt := now.Sub(m.at).Seconds(); dt > 0 {
		q.TxRate = 8 * float64(t.cum.txBytes-m.txBytes) / dt
		q.RxRate = 8 * float64(t.cum.rxBytes-m.rxBytes) / dt
	}
	return q
}

// lossOf is the loss of one direction between two points. Without counters the
// probes stand for both directions; with them, the probes that are missing
// since the last reply are added, since no counter has spoken of them yet.
func lossOf(now, then tally, missed, probes, run int64) Loss {
	total, lost := now.total-then.total, now.lost-then.lost
	if total <= 0 {
		return NewLoss(uint64(max(missed, 0)), uint64(max(probes, 0)))
	}
	run = min(run, max(missed, 0))
	return NewLoss(uint64(max(lost, 0)+run), uint64(total+run))
}
