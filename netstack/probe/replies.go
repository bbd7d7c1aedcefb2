package probe

import (
	"time"

	"patronus/netstack/path"
)

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
	if !s.replied || int32(seq-s.answered) > 0 {
		s.answered, s.replied = seq, true
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

// Heard takes a request of the peer's own session that came over the path at
// now. If the peer has received packets of ours since its last word, or says
// that it has heard a probe of ours, the path carries both ways whatever becomes
// of our replies: it carried what we sent until sentAt (for [path.Tracker.Alive]).
// So random loss of three replies in a row is not taken for a dead path, and a
// dead path is noticed no later.
func (s *Session) Heard(r *Received, now time.Time) (sentAt time.Time, ok bool) {
	h := &s.heard
	if !r.HasCounts {
		return time.Time{}, false
	}
	if !h.ok || r.Counts.Epoch != h.epoch {
		*h = report{epoch: r.Counts.Epoch, rx: r.Counts.Rx, at: now, seq: r.Seq, ok: true}
		return time.Time{}, false
	}
	if int32(r.Seq-h.seq) <= 0 { // overtaken
		return time.Time{}, false
	}
	h.seq = r.Seq
	// What arrived after the peer's last word was under way when that came
	// in, at the earliest a round trip before.
	if r.Counts.Rx > h.rx && s.srtt > 0 {
		sentAt = h.at.Add(-s.srtt - 2*s.rttvar)
	}
	h.rx, h.at = r.Counts.Rx, now
	if r.HasHeard && s.seq-r.Heard-1 < ringSize {
		if at := s.ring[r.Heard%ringSize].at; at.After(sentAt) {
			sentAt = at
		}
	}
	if !sentAt.After(s.alive) {
		return s.alive, !s.alive.IsZero()
	}
	s.alive = sentAt
	s.missed = 0
	for seq := s.seq; s.seq-seq < min(ringSize, s.seq); {
		seq--
		p := &s.ring[seq%ringSize]
		if s.replied && int32(seq-s.answered) <= 0 || !p.at.After(sentAt) {
			break
		}
		if p.fate == missing && !p.extra {
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
