package path

import (
	"math"
	"slices"
	"time"
)

// The windows: fast for catastrophes, short to act within 3 s, normal to act
// and to show, slow for trends.
const (
	FastWindow   = time.Second
	shortWindow  = 3 * time.Second
	NormalWindow = 10 * time.Second
	SlowWindow   = time.Minute
)

// tally counts one direction since the tracker began. lost may lag or run ahead
// by the packets that are overtaken by a probe or overtake it; that error does
// not accumulate, since every reply counts from the beginning.
type tally struct{ total, lost int64 }

// totals are cumulative; windows are differences of two of them.
type totals struct {
	out, in          tally
	probes, missed   int64 // probes resolved, and of them missing
	txBytes, rxBytes uint64
	reorder, dup     uint64
}

type mark struct {
	at time.Time
	totals
}

// marks keeps the totals of the last ticks, newest last.
type marks struct {
	ring [64]mark
	n    int // ever pushed
}

func (m *marks) push(at time.Time, t totals) {
	m.ring[m.n%len(m.ring)] = mark{at: at, totals: t}
	m.n++
}

func (m *marks) reset() { m.n = 0 }

// since is the newest mark at least d old, or else the oldest; ok is false if
// there is none.
func (m *marks) since(now time.Time, d time.Duration) (mark, bool) {
	var found mark
	ok := false
	for i := m.n - 1; i >= 0 && i >= m.n-len(m.ring); i-- {
		found, ok = m.ring[i%len(m.ring)], true
		// Ticks are never quite on time: half a fast window of grace.
		if now.Sub(found.at) >= d-FastWindow/2 {
			break
		}
	}
	return found, ok
}

// rtts keeps the round trips of the slow window, oldest first.
type rtts struct {
	list []rttSample
	sort []time.Duration // scratch
}

type rttSample struct {
	at  time.Time
	rtt time.Duration
}

// maxRTTs holds the slow window at 20 probes a second, with room for bursts.
const maxRTTs = 1536

func (r *rtts) add(at time.Time, rtt time.Duration) {
	if len(r.list) == maxRTTs {
		r.list = r.list[:copy(r.list, r.list[maxRTTs/4:])]
	}
	r.list = append(r.list, rttSample{at: at, rtt: rtt})
}

// trim forgets what has left the slow window.
func (r *rtts) trim(now time.Time) {
	i := 0
	for i < len(r.list) && now.Sub(r.list[i].at) > SlowWindow {
		i++
	}
	if i > 0 {
		r.list = r.list[:copy(r.list, r.list[i:])]
	}
}

func (r *rtts) reset() { r.list = r.list[:0] }

// stats are the mean and the p95 PDV of the last d.
func (r *rtts) stats(now time.Time, d time.Duration) (mean, pdv time.Duration, n int) {
	r.sort = r.sort[:0]
	var sum time.Duration
	for i := len(r.list) - 1; i >= 0 && now.Sub(r.list[i].at) <= d; i-- {
		r.sort = append(r.sort, r.list[i].rtt)
		sum += r.list[i].rtt
	}
	n = len(r.sort)
	if n == 0 {
		return 0, 0, 0
	}
	slices.Sort(r.sort)
	rank := int(math.Ceil(0.95 * float64(n)))
	return sum / time.Duration(n), r.sort[rank-1] - r.sort[0], n
}

// mean is the mean of all that is kept, the slow window.
func (r *rtts) mean() (mean time.Duration, n int) {
	var sum time.Duration
	for i := range r.list {
		sum += r.list[i].rtt
	}
	if len(r.list) == 0 {
		return 0, 0
	}
	return sum / time.Duration(len(r.list)), len(r.list)
}

// jitter is the estimator of RFC 3550 (6.4.1, A.8) for one direction.
type jitter struct {
	last  time.Duration
	value float64
	has   bool
}

// add takes the next transit time, in order of arrival. Its unknown clock
// offset cancels.
func (j *jitter) add(transit time.Duration) {
	if j.has {
		d := float64(transit - j.last)
		j.value += (math.Abs(d) - j.value) / 16
	}
	j.last, j.has = transit, true
}
