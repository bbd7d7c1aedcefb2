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
	// Extra probes between the regular ones: while a loss is confirmed,
	// since any answer tells bad luck from a dead path; and in a burst after
	// it on an active path, since the SLA of a thin voice stream could not be
	// judged within 3 s by its own packets. Only where the ring holds them.
	burstFactor  = 5
	burstFor     = 2 * time.Second
	burstEvery   = 10 * time.Second
	burstTimeout = time.Second
	upAfter      = 3 // replies in a row that end Down, as in package path
)

// Rate is how often a path is probed, and why.
type Rate uint8

// The rates.
const (
	RateCold       Rate = iota // not at all: no traffic for long
	RateIdle                   // traffic within the last 15 minutes
	RateWarm                   // traffic within the last minute, or a stand-by
	RateActive                 // traffic now
	RateBurst                  // traffic now, and a probe went missing
	RateConfirming             // active, without regard to the budget: a probe is missing, or the path comes back
)

var rateNames = [...]string{"cold", "idle", "warm", "active", "burst", "confirming"}

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
	regular time.Time // last one that was not extra
	burst   time.Time // when the last burst began
	carried time.Time // last traffic on the path
	wanted  time.Time // last time the path was a stand-by for traffic

	srtt, rttvar time.Duration
	missed       int // missing in a row
	good         int // answered in a row
	down         bool

	answered uint32 // newest sequence answered, if replied
	replied  bool
	last     anchor
	notices  []Notice
	noticeAt uint32 // first sequence that carries them

	heard report
	alive time.Time // sent until then: known to have got through
	grace bool      // the last Expire was late and granted time
}

// report is what came with the peer's own probes.
type report struct {
	epoch uint32
	rx    uint64    // what it has received of ours
	at    time.Time // when it said so
	seq   uint32    // of its newest probe
	ok    bool
}

// sent is one probe under way, or remembered.
type sent struct {
	at       time.Time
	deadline time.Time
	fate     fate
	extra    bool
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
		if now.Sub(s.burst) < burstFor {
			return RateBurst
		}
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
		if s.timeout() < burstTimeout {
			d /= burstFactor
		}
		return d, true
	case RateActive:
	case RateBurst:
		d /= burstFactor
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
	r = Request{Seq: s.seq, SSID: s.o.SSID, Time: now, Counts: c, Notices: s.notices, Heard: s.heard.seq, HasHeard: s.heard.ok}
	extra := now.Sub(s.regular) < s.o.Active-s.o.Active/(2*burstFactor) // timers may be early or late
	if !extra {
		s.regular = now
	}
	s.ring[s.seq%ringSize] = sent{at: now, deadline: now.Add(s.timeout()), fate: pending, extra: extra}
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
			dst = append(dst, path.Probe{SentAt: p.at, Lost: true, Extra: p.extra})
			s.miss(i, now)
		}
	}
	for s.tail != s.seq && s.ring[s.tail%ringSize].fate != pending {
		s.tail++
	}
	return dst
}

func (s *Session) miss(seq uint32, now time.Time) {
	if now.Sub(s.burst) >= burstEvery && s.Rate(now) == RateActive && s.timeout() < burstTimeout {
		s.burst = now
		defer s.reschedule(now)
	}
	p := &s.ring[seq%ringSize]
	if p.extra || s.replied && int32(seq-s.answered) < 0 || !p.at.After(s.alive) {
		return // lost alone
	}
	s.missed++
	s.good = 0
	if s.missed >= s.o.Lost {
		s.down = true
	}
	s.reschedule(now)
}
