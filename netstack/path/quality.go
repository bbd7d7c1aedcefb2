package path

import (
	"math"
	"time"
)

// Quality is what a path was like over one window that ended at At.
type Quality struct {
	// Delay is the mean round-trip time without the peer's processing time:
	// (T4-T1)-(T3-T2) (RFC 8762).
	Delay time.Duration
	// PDVp95 is the 95th percentile (nearest rank) of packet delay variation,
	// delay minus the window's minimum (RFC 5481, 4.2), of the round trip. It
	// bounds the variation of either direction from above.
	PDVp95 time.Duration
	// Jitter3550 is the interarrival jitter of RFC 3550 (6.4.1), the greater
	// one of both directions.
	Jitter3550 time.Duration
	// LossOut is loss of what we send, LossIn of what the peer sends. They
	// count every packet in the tunnel, or probes alone if the peer does not
	// count.
	LossOut, LossIn Loss
	// Reorder and Dup count received packets (RFC 4737 type P-reordered; RFC 5560).
	Reorder, Dup uint64
	// TxRate and RxRate are the carried rates, bit/s of inner IP packets.
	TxRate, RxRate float64
	// MTU is the largest inner IP packet the path carries, bytes; 0: not known.
	MTU int
	// Samples is the number of round trips behind Delay and PDVp95.
	Samples int
	At      time.Time
}

// Measured reports whether anything at all is known.
func (q *Quality) Measured() bool { return q.Samples > 0 || q.LossOut.Total > 0 || q.LossIn.Total > 0 }

// WorstLoss is the loss of the worse direction.
func (q *Quality) WorstLoss() Loss {
	if q.LossIn.Percent > q.LossOut.Percent || q.LossOut.Total == 0 {
		return q.LossIn
	}
	return q.LossOut
}

// Loss is a count of lost packets with the interval that the sample allows.
type Loss struct {
	Lost, Total uint64
	// Percent is Lost/Total; Low and High are the Wilson 95 % score interval
	// (E. B. Wilson, JASA 22, 1927), percent. All are 0 if Total is.
	Percent, Low, High float64
}

// z95 is the standard normal quantile of a two-sided 95 % interval.
const z95 = 1.959963984540054

// NewLoss computes the interval; lost is capped at total.
func NewLoss(lost, total uint64) Loss {
	if total == 0 {
		return Loss{}
	}
	lost = min(lost, total)
	n := float64(total)
	p := float64(lost) / n
	const z2 = z95 * z95
	d := 1 + z2/n
	centre := (p + z2/(2*n)) / d
	half := z95 / d * math.Sqrt(p*(1-p)/n+z2/(4*n*n))
	l := Loss{Lost: lost, Total: total, Percent: 100 * p, Low: 100 * max(0, centre-half), High: 100 * min(1, centre+half)}
	// Rounding must not push the bounds past the estimate.
	if lost == 0 {
		l.Low = 0
	}
	if lost == total {
		l.High = 100
	}
	return l
}

// plus pools two samples.
func (l Loss) plus(m Loss) Loss { return NewLoss(l.Lost+m.Lost, l.Total+m.Total) }
