package store

// A timeline places the ticks of one site in time. It is the site's own clock,
// with one promise: no time is written twice. Where the clock goes back into
// what was already written, the timeline goes on after it, and is brought back
// to the clock slowly, as adjtime(3) would: no minute is lost and none is there
// twice. What is added is added to Offset as well, so that At - Offset stays
// the fabric's time.
//
// A clock that jumped far ahead and comes back leaves an island behind: the
// time before the island was never written and is used as it is.
type timeline struct {
	spans []span // written times, disjoint, in order
	at    int    // index of the span that grows
	ahead int64  // timeline minus clock, ms, >= 0
	clock int64  // of the last tick, own clock
}

// span is a stretch of written time, both ends included.
type span struct{ from, to int64 }

const (
	// gapMs is how far the clock must jump ahead to leave a gap that it may come
	// back to.
	gapMs = 5 * minuteMs
	// slewPart: for each slewPart ms of clock, the timeline loses 1 ms that it
	// is ahead, at most.
	slewPart = 8
	// maxSpans bounds the islands that are remembered.
	maxSpans = 16
	// stepMs is the least step of a clock that is worth a record.
	stepMs = 1000
)

// step is a jump of a site's clock.
type step struct {
	by    int64 // ms, > 0 ahead
	ahead int64 // what the timeline is ahead of the clock from now on, ms
}

// place gives the time on the timeline of a tick at clock. The result is
// after all results before it that it could be confused with. stepped is set
// if the clock went back, or ahead by more than gapMs.
func (t *timeline) place(clock int64) (at int64, s step, stepped bool) {
	if len(t.spans) == 0 {
		t.spans, t.at, t.clock, t.ahead = []span{{clock, clock}}, 0, clock, 0
		return clock, step{}, false
	}
	moved := clock - t.clock
	cur := t.spans[t.at]
	switch {
	case moved <= 0:
		// Back (or standing still): where the clock says, if nothing is there yet.
		s.by, stepped = moved, moved <= -stepMs
		t.ahead = 0
		at = clock
	case moved > gapMs:
		// Ahead, or nothing was appended for a while: as the clock says.
		s.by, stepped = moved, t.ahead > 0
		t.ahead = max(0, t.ahead-moved)
		at = clock + t.ahead
	default:
		t.ahead -= min(t.ahead, moved/slewPart)
		at = clock + t.ahead
	}
	t.clock = clock
	if moved > 0 && at > cur.to && at-cur.to <= gapMs && !t.taken(at) {
		t.spans[t.at].to = at
		t.ahead = at - clock
		s.ahead = t.ahead
		return at, s, stepped
	}
	at = t.free(at)
	t.ahead = at - clock
	s.ahead = t.ahead
	return at, s, stepped
}

// taken reports whether at is in a span other than the one that grows.
func (t *timeline) taken(at int64) bool {
	for i, sp := range t.spans {
		if i != t.at && sp.from <= at && at <= sp.to {
			return true
		}
	}
	return false
}

// free is the first time from at on that is in no span; it is added to a span.
func (t *timeline) free(at int64) int64 {
	i := 0
	for ; i < len(t.spans) && t.spans[i].from <= at; i++ {
		at = max(at, t.spans[i].to+1)
	}
	if i > 0 && at-t.spans[i-1].to <= gapMs {
		t.spans[i-1].to = at
		t.at = i - 1
		return at
	}
	t.spans = append(t.spans, span{})
	copy(t.spans[i+1:], t.spans[i:])
	t.spans[i] = span{at, at}
	t.at = i
	if len(t.spans) > maxSpans {
		// The two oldest become one: the time between them is lost to us.
		t.spans[1].from = t.spans[0].from
		t.spans = t.spans[1:]
		t.at = max(0, t.at-1)
	}
	return at
}

// wrote notes a time that was written, as the log and the base tell.
func (t *timeline) wrote(at int64) {
	t.clock, t.ahead = at, 0
	for i := range t.spans {
		sp := &t.spans[i]
		if sp.from <= at && at-sp.to <= gapMs {
			sp.to, t.at = max(sp.to, at), i
			return
		}
	}
	t.free(at)
}

// extend notes that all from the time noted last to at was written.
func (t *timeline) extend(at int64) {
	sp := &t.spans[t.at]
	sp.to = max(sp.to, at)
	t.clock = sp.to
}
