package probe

import (
	"time"

	"patronus/netstack/path"
)

// Options set up a session. Zero values mean the defaults.
type Options struct {
	// SSID identifies the session to the reflector (RFC 8972, 3), not 0.
	SSID uint16
	// Active, Warm and Idle are the intervals of the rates, Cold the silence
	// after which probing stops: 50 ms, 1 s, 10 s, 15 min.
	Active, Warm, Idle, Cold time.Duration
	// Lost is how many probes missing in a row mean Down; 3.
	Lost int
	// Budget is shared by the sessions of an uplink; nil means no bound.
	Budget *Budget
}

// Figures of the rate policy and of the timeout.
const (
	activeFor = 2 * time.Second // after the last packet carried
	warmFor   = time.Minute
	// overhead is what a probe costs beside its payload: UDP and the outer
	// header, WireGuard, UDP and IP, octets.
	overhead = 28 + 32 + 28

	floorTimeout   = 20 * time.Millisecond
	initialTimeout = time.Second // RFC 6298, 2.1
	capTimeout     = 3 * time.Second
	// stall is how late a call to Expire has to be for the lateness to be
	// ours: then replies may be waiting unread, and get a little time.
	stall = 100 * time.Millisecond
	// ringSize holds capTimeout at the active rate, twice.
	ringSize = 128
	upAfter  = 3 // replies in a row that end Down, as in package path
)

// Rate is how often a path is probed, and why.
type Rate uint8

// The rates.
const (
	RateCold       Rate = iota // not at all: no traffic for long
	RateIdle                   // traffic within the last 15 minutes
	RateWarm                   // traffic within the last minute, or a stand-by
	RateActive                 // traffic now
	RateConfirming             // active, without regard to the budget: a probe is missing, or the path comes back
)

var rateNames = [...]string{"cold", "idle", "warm", "active", "confirming"}

// String is the name that the status shows.
func (r Rate) String() string {
	if int(r) < len(rateNames) {
		return rateNames[r]
	}
	return "rate(?)"
}

// Session is the sender's side of one path: it says when to probe, remembers
// what is under way and what became of it. It belongs to one goroutine, which
// calls, whenever Due is reached: Expire, then Next.
type Session struct {
	o    Options
	seq  uint32 // of the next probe
	ring [ringSize]sent
	tail uint32 // oldest probe that may be unresolved

	next    time.Time // when to send; zero: not
	lastAt  time.Time // last probe sent
	carried time.Time // last traffic on the path
	wanted  time.Time // last time the path was a stand-by for traffic

	srtt, rttvar time.Duration
	missed       int // missing in a row
	good         int // answered in a row
	down         bool

	answered uint32 // newest sequence answered, if any
	any      bool
	last     anchor
	notices  []Notice
	noticeAt uint32 // first sequence that carries them

	heard report
	alive time.Time // sent until then: known to have got through
	grace bool      // the last Expire was late and granted time
}

// report is the peer's word of what it has received.
type report struct {
	epoch uint32
	rx    uint64
	at    time.Time
}

type sent struct {
	at       time.Time
	deadline time.Time
	fate     fate
}

type fate uint8

const (
	resolved fate = iota // answered, or never sent
	pending
	missing
)

// anchor is the last set of counters taken, to extend 32-bit ones.
type anchor struct {
	path.Counts
	seq   uint32
	ok    bool
	bad   int // sets refused in a row
	epoch uint64
}

// NewSession begins probing at now; the path counts as wanted, so it is probed
// for a while even without traffic.
func NewSession(o Options, now time.Time) *Session {
	set := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	set(&o.Active, 50*time.Millisecond)
	set(&o.Warm, time.Second)
	set(&o.Idle, 10*time.Second)
	set(&o.Cold, 15*time.Minute)
	if o.Lost <= 0 {
		o.Lost = 3
	}
	return &Session{o: o, next: now, wanted: now}
}

// Carried tells that the path carried traffic at the given time, probes apart.
// Call it at least every 100 ms while it does: it brings the next probe forward.
func (s *Session) Carried(at, now time.Time) {
	if at.After(s.carried) {
		s.carried = at
		s.reschedule(now)
	}
}

// Wanted tells that another path to the same site carried traffic, so that this
// one has to be known as a stand-by.
func (s *Session) Wanted(at, now time.Time) {
	if at.After(s.wanted) {
		s.wanted = at
		s.reschedule(now)
	}
}

// Rate is the rate at now.
func (s *Session) Rate(now time.Time) Rate {
	idle := now.Sub(s.carried)
	heard := min(idle, now.Sub(s.wanted))
	switch {
	case s.carried.IsZero() && s.wanted.IsZero(), heard > s.o.Cold:
		return RateCold
	case s.missed > 0 && !s.down, s.down && s.good > 0:
		return RateConfirming
	case idle <= activeFor && !s.down:
		return RateActive
	case heard <= warmFor:
		return RateWarm
	}
	return RateIdle
}

func (s *Session) interval(now time.Time) (time.Duration, bool) {
	d := s.o.Active
	switch s.Rate(now) {
	case RateCold:
		return 0, false
	case RateConfirming:
		return d, true
	case RateActive:
	case RateWarm:
		d = s.o.Warm
	case RateIdle:
		d = s.o.Idle
	}
	if s.o.Budget != nil {
		d = s.o.Budget.stretch(d, now)
	}
	return d, true
}

// reschedule brings the next probe forward if the rate has risen.
func (s *Session) reschedule(now time.Time) {
	d, ok := s.interval(now)
	if !ok {
		return
	}
	at := s.lastAt.Add(d)
	if at.Before(now) {
		at = now
	}
	if s.next.IsZero() || at.Before(s.next) {
		s.next = at
	}
}

// Due is when the session has something to do; the zero time means nothing
// until Carried, Wanted or Announce.
func (s *Session) Due() time.Time {
	due := s.next
	for i := s.tail; i != s.seq; i++ {
		if p := &s.ring[i%ringSize]; p.fate == pending && (due.IsZero() || p.deadline.Before(due)) {
			due = p.deadline
		}
	}
	return due
}

// Next is the probe to send at now; ok is false if none is due. Its notices are
// borrowed until the next call of a method.
func (s *Session) Next(now time.Time, c Counts) (r Request, ok bool) {
	if s.next.IsZero() || now.Before(s.next) {
		return Request{}, false
	}
	d, ok := s.interval(now)
	if !ok {
		s.next = time.Time{}
		return Request{}, false
	}
	if s.seq-s.tail == ringSize { // cannot be at any rate above capTimeout
		s.tail++
	}
	r = Request{Seq: s.seq, SSID: s.o.SSID, Time: now, Counts: c, Notices: s.notices}
	s.ring[s.seq%ringSize] = sent{at: now, deadline: now.Add(s.timeout()), fate: pending}
	s.seq++
	s.lastAt = now
	s.next = now.Add(d)
	if s.o.Budget != nil {
		s.o.Budget.take(BaseLen+2*tlvHeader+directLen+countsLen+overhead+len(s.notices)*noticeLen, now)
	}
	return r, true
}

// timeout is how long a reply may take: at least the active interval, and RFC
// 6298's estimate of the round trip.
func (s *Session) timeout() time.Duration {
	if s.srtt == 0 {
		return max(initialTimeout, s.o.Active)
	}
	return max(s.o.Active, floorTimeout, min(s.srtt+4*s.rttvar, capTimeout))
}

// Announce has the notices travel with every probe from now on until the peer
// has answered one of them, and the first of those leave at once.
func (s *Session) Announce(ns []Notice, now time.Time) {
	s.notices = ns[:min(len(ns), MaxNotices)]
	s.noticeAt = s.seq
	s.next = now
	if s.wanted.IsZero() || now.Sub(s.wanted) > s.o.Cold-warmFor {
		s.wanted = now // a cold path carries the news, too
	}
}

// Result is what a reply told.
type Result struct {
	Probe path.Probe
	// Counts belong to Probe, if HasCounts: the peer counts, and the reply
	// is no older than the last one counted.
	Counts    path.Counts
	HasCounts bool
	// Peer is the peer's own view, if it is of ours.
	Peer    Counts
	HasPeer bool
	// Duplicate: the probe had been answered before; Probe is not valid.
	Duplicate bool
}

// OnReply takes a reflected packet that came out of the path at now, and our
// counters of that moment (Epoch, Tx, Rx). ok is false if it is not a reply to a
// probe of this session that is still remembered.
func (s *Session) OnReply(b []byte, now time.Time, c Counts) (res Result, ok bool) {
	r, err := ParseReply(b)
	if err != nil || (r.SSID != s.o.SSID && r.SSID != 0) || s.seq-r.SenderSeq-1 >= ringSize {
		return Result{}, false
	}
	p := &s.ring[r.SenderSeq%ringSize]
	if p.at.IsZero() {
		return Result{}, false
	}
	if p.fate == resolved {
		return Result{Duplicate: true}, true
	}
	res.Probe = path.Probe{SentAt: p.at, Late: p.fate == missing}
	p.fate = resolved
	s.measure(&r, now, &res.Probe)
	s.estimate(res.Probe.RTT)
	s.revive(r.SenderSeq, now)
	if len(s.notices) > 0 && r.SenderSeq-s.noticeAt < ringSize {
		s.notices = nil // heard, or never will be
	}
	res.Peer, res.HasPeer = r.Counts, r.HasCounts
	res.Counts, res.HasCounts = s.count(&r, c)
	return res, true
}

// measure fills in the times. The clocks are the engine's, which do not step;
// if a peer's makes no sense, the whole round trip is taken.
func (s *Session) measure(r *Reply, now time.Time, p *path.Probe) {
	t4 := TimestampOf(now)
	whole, held := t4.Sub(r.T1), r.T3.Sub(r.T2)
	if whole < 0 || whole > now.Sub(p.SentAt)+time.Second {
		whole = now.Sub(p.SentAt) // T1 was not echoed as we wrote it
	}
	p.RTT = whole
	if held >= 0 && held <= whole {
		p.RTT = whole - held
		p.Out, p.In, p.Timed = r.T2.Sub(r.T1), t4.Sub(r.T3), true
	}
}

// estimate is RFC 6298, 2.
func (s *Session) estimate(rtt time.Duration) {
	rtt = max(rtt, 1)
	if s.srtt == 0 {
		s.srtt, s.rttvar = rtt, rtt/2
		return
	}
	s.rttvar += ((s.srtt - rtt).Abs() - s.rttvar) / 4
	s.srtt += (rtt - s.srtt) / 8
}

// revive notes a sign of life and what it means for older probes.
func (s *Session) revive(seq uint32, now time.Time) {
	if !s.any || int32(seq-s.answered) > 0 {
		s.answered, s.any = seq, true
		s.missed = 0
	}
	s.good++
	if s.down && s.good >= upAfter {
		s.down = false
	}
	if s.down {
		s.reschedule(now) // confirm that it is back
	}
	// An older probe that is overtaken gets no longer than reordering takes.
	grace := now.Add(max(floorTimeout, 2*s.rttvar))
	for i := s.tail; i != s.seq && int32(i-seq) < 0; i++ {
		if p := &s.ring[i%ringSize]; p.fate == pending && grace.Before(p.deadline) {
			p.deadline = grace
		}
	}
}

// Expire appends the probes that are missing by now to dst.
func (s *Session) Expire(now time.Time, dst []path.Probe) []path.Probe {
	if due := s.Due(); due.IsZero() || now.Sub(due) <= stall {
		s.grace = false
	} else if !s.grace {
		s.grace = true
		for i := s.tail; i != s.seq; i++ {
			p := &s.ring[i%ringSize]
			if again := now.Add(floorTimeout); p.fate == pending && p.deadline.Before(again) {
				p.deadline = again
			}
		}
	}
	for i := s.tail; i != s.seq; i++ {
		p := &s.ring[i%ringSize]
		if p.fate == pending && !p.deadline.After(now) {
			p.fate = missing
			dst = append(dst, path.Probe{SentAt: p.at, Lost: true})
			s.miss(i, now)
		}
	}
	for s.tail != s.seq && s.ring[s.tail%ringSize].fate != pending {
		s.tail++
	}
	return dst
}

func (s *Session) miss(seq uint32, now time.Time) {
	if s.any && int32(seq-s.answered) < 0 || !s.ring[seq%ringSize].at.After(s.alive) {
		return // lost alone
	}
	s.missed++
	s.good = 0
	if s.missed >= s.o.Lost {
		s.down = true
	}
	s.reschedule(now)
}

// Heard takes the peer's counters out of a request of its own that came over
// the path at now. If the peer has received packets of ours since its last word,
// the path carries both ways whatever becomes of our replies: it carried what we
// sent until sentAt (for [path.Tracker.Alive]), which is the arrival of that last
// word less a round trip. So random loss of three replies in a row is not taken
// for a dead path, and a dead path is noticed no later.
func (s *Session) Heard(peer Counts, now time.Time) (sentAt time.Time, ok bool) {
	h := s.heard
	switch {
	case h.at.IsZero() || peer.Epoch != h.epoch:
		s.heard = report{epoch: peer.Epoch, rx: peer.Rx, at: now}
		return time.Time{}, false
	case peer.Rx < h.rx: // overtaken
		return time.Time{}, false
	}
	s.heard.rx, s.heard.at = peer.Rx, now
	if peer.Rx == h.rx || s.srtt == 0 {
		return time.Time{}, false
	}
	sentAt = h.at.Add(-s.srtt - 2*s.rttvar)
	if !sentAt.After(s.alive) {
		return s.alive, true
	}
	s.alive = sentAt
	s.missed = 0
	for i := uint32(0); i < ringSize && i < s.seq; i++ {
		p, seq := &s.ring[(s.seq-1-i)%ringSize], s.seq-1-i
		if s.any && int32(seq-s.answered) <= 0 || !p.at.After(sentAt) {
			break
		}
		if p.fate == missing {
			s.missed++
		}
	}
	return sentAt, true
}

// count completes the counters of a reply to 64 bits. Sets that are older than
// the last one, because requests or replies were overtaken, are passed over.
func (s *Session) count(r *Reply, c Counts) (path.Counts, bool) {
	if !r.HasDirect {
		return path.Counts{}, false
	}
	a := &s.last
	n := path.Counts{Tx: extend(r.STx, c.Tx), Rx: c.Rx}
	if r.HasCounts {
		n.PeerTx, n.PeerRx = extend(r.RTx, r.Counts.Tx), extend(r.RRx, r.Counts.Rx)
		n.Epoch = uint64(c.Epoch)<<32 | uint64(r.Counts.Epoch)
	} else {
		n.PeerTx, n.PeerRx = uint64(r.RTx), uint64(r.RRx)
		if a.ok {
			n.PeerTx, n.PeerRx = extend(r.RTx, a.PeerTx), extend(r.RRx, a.PeerRx)
		}
		n.Epoch = a.epoch
	}
	switch {
	case !a.ok || r.HasCounts && n.Epoch != a.Epoch:
	case int32(r.SenderSeq-a.seq) <= 0:
		return path.Counts{}, false
	case n.Tx < a.Tx || n.PeerTx < a.PeerTx || n.PeerRx < a.PeerRx || n.Rx < a.Rx:
		if a.bad++; a.bad < 3 {
			return path.Counts{}, false
		}
		if !r.HasCounts { // a peer without epochs has started over
			a.epoch++
			n.Epoch = a.epoch
			n.PeerTx, n.PeerRx = uint64(r.RTx), uint64(r.RRx)
		}
	}
	a.Counts, a.seq, a.ok, a.bad = n, r.SenderSeq, true, 0
	return n, true
}

// extend is the 64-bit value nearest to near whose low half is low.
func extend(low uint32, near uint64) uint64 {
	d := int64(int32(low - uint32(near)))
	if d < 0 && uint64(-d) > near {
		return uint64(low)
	}
	return near + uint64(d)
}
