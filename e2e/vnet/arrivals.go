package vnet

import (
	"math/bits"
	"time"
)

// UDPReport is what a sink saw of its streams.
type UDPReport struct {
	Received uint64 `json:"received"` // copies not included
	Bytes    uint64 `json:"bytes"`    // UDP payload, copies not included
	// Lost is the sequence numbers below the highest seen that did not come:
	// packets still in flight behind it do not count.
	Lost       uint64 `json:"lost"`
	Duplicated uint64 `json:"duplicated"`
	Reordered  uint64 `json:"reordered"` // RFC 4737, section 3.3
	// Latency is one way, with the clock of the sending process. Percentiles are
	// of a histogram and within 1/16 of the value.
	LatencyMin, LatencyMean, LatencyP50, LatencyP99, LatencyMax time.Duration
	// LongestGap is the longest time between two arrivals of one stream, and
	// GapAt when it ended: the outage that a failover caused.
	LongestGap time.Duration
	GapAt      time.Time
}

// add combines the reports of two streams, latencies aside.
func (r *UDPReport) add(s *UDPReport) {
	r.Received += s.Received
	r.Bytes += s.Bytes
	r.Lost += s.Lost
	r.Duplicated += s.Duplicated
	r.Reordered += s.Reordered
	if s.LongestGap > r.LongestGap {
		r.LongestGap, r.GapAt = s.LongestGap, s.GapAt
	}
}

// seqWindow is how far back a late packet is told from a copy, in packets.
const seqWindow = 4096

// arrivals follows one stream of numbered packets. Not safe for concurrent use.
type arrivals struct {
	report UDPReport
	next   uint64 // highest seen + 1
	seen   [seqWindow / 64]uint64
	last   time.Time
}

// observe notes packet seq and reports whether it is the first copy.
func (a *arrivals) observe(seq uint64, size int, at time.Time) bool {
	switch {
	case seq >= a.next:
		a.advance(seq)
	case a.next-seq > seqWindow || a.seen[seq/64%uint64(len(a.seen))]>>(seq%64)&1 == 1:
		a.report.Duplicated++
		return false
	default:
		a.report.Reordered++
		a.report.Lost--
	}
	a.seen[seq/64%uint64(len(a.seen))] |= 1 << (seq % 64)
	a.report.Received++
	a.report.Bytes += uint64(size)
	if !a.last.IsZero() {
		if gap := at.Sub(a.last); gap > a.report.LongestGap {
			a.report.LongestGap, a.report.GapAt = gap, at
		}
	}
	a.last = at
	return true
}

// advance forgets the numbers that leave the window, and counts the skipped as
// lost until they come.
func (a *arrivals) advance(seq uint64) {
	a.report.Lost += seq - a.next
	if seq-a.next >= seqWindow {
		clear(a.seen[:])
	} else {
		for s := a.next; s <= seq; s++ {
			a.seen[s/64%uint64(len(a.seen))] &^= 1 << (s % 64)
		}
	}
	a.next = seq + 1
}

// latencies is a histogram with 16 buckets to each power of two nanoseconds.
type latencies struct {
	count    uint64
	sum      time.Duration
	min, max time.Duration
	buckets  [64 * 16]uint64
}

func (l *latencies) observe(d time.Duration) {
	d = max(d, 0)
	if l.count == 0 || d < l.min {
		l.min = d
	}
	l.max = max(l.max, d)
	l.count++
	l.sum += d
	l.buckets[bucketOf(uint64(d))]++
}

// bucketOf is exact below 32 and keeps the five leading bits above.
func bucketOf(v uint64) int {
	if v < 32 {
		return int(v)
	}
	shift := bits.Len64(v) - 5
	return shift*16 + int(v>>shift)
}

// bucketTop is the largest value of a bucket.
func bucketTop(b int) uint64 {
	if b < 32 {
		return uint64(b)
	}
	shift := b/16 - 1
	return (uint64(b-shift*16)+1)<<shift - 1
}

// quantile is an upper bound of the value below which a part q lies, at most max.
func (l *latencies) quantile(q float64) time.Duration {
	want := uint64(q * float64(l.count))
	var n uint64
	for b, c := range l.buckets {
		if n += c; c > 0 && n > want {
			return min(time.Duration(bucketTop(b)), l.max)
		}
	}
	return l.max
}

// fill writes the figures into a report.
func (l *latencies) fill(r *UDPReport) {
	if l.count == 0 {
		return
	}
	r.LatencyMin, r.LatencyMax = l.min, l.max
	r.LatencyMean = l.sum / time.Duration(l.count)
	r.LatencyP50, r.LatencyP99 = l.quantile(0.50), l.quantile(0.99)
}
