package probe

import "time"

// DefaultBudget bounds the probes of an uplink if the configuration does not,
// kbit/s each way: eight active paths at full rate.
const DefaultBudget = 256

// Budget is the token bucket that the sessions of one uplink share. As it
// empties, the sessions stretch their intervals, up to maxStretch; a session
// that is confirming a loss does not, so that only the first missing probe of a
// failure is noticed later: Down takes at most maxStretch x 50 ms + 100 ms + the
// timeout. It is not safe for concurrent use.
type Budget struct {
	rate   float64 // bytes/s
	tokens float64
	at     time.Time
}

// maxStretch is how much longer an interval gets when the bucket is empty.
const maxStretch = 5

// NewBudget allows kbps kbit/s, 0 meaning [DefaultBudget], and one second's
// worth at once.
func NewBudget(kbps int) *Budget {
	if kbps <= 0 {
		kbps = DefaultBudget
	}
	rate := float64(kbps) * 1000 / 8
	return &Budget{rate: rate, tokens: rate}
}

// take pays for n bytes; the bucket may go into debt, by a second at most.
func (b *Budget) take(n int, now time.Time) {
	b.fill(now)
	b.tokens = max(b.tokens-float64(n), -b.rate)
}

// stretch lengthens an interval by the bucket's level: not at all while it is
// at least half full.
func (b *Budget) stretch(d time.Duration, now time.Time) time.Duration {
	b.fill(now)
	half := b.rate / 2
	want := min(max((half-b.tokens)/half, 0), 1)
	return d + time.Duration(want*(maxStretch-1)*float64(d))
}

func (b *Budget) fill(now time.Time) {
	if dt := now.Sub(b.at); !b.at.IsZero() && dt > 0 {
		b.tokens = min(b.tokens+dt.Seconds()*b.rate, b.rate)
	}
	if now.After(b.at) {
		b.at = now
	}
}
