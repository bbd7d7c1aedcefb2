package path

import (
	"math"
	"time"
)

// Damper keeps flows off a path that flaps, as RFC 2439 does with routes: each
// flap adds a penalty that decays exponentially; the path is suppressed when
// the penalty passes one limit and reused below another. The zero value is
// ready. It is not safe for concurrent use.
type Damper struct {
	penalty    float64
	at         time.Time
	suppressed bool
}

// The figures of merit (RFC 2439, 4.2): of the order of minutes, since what is
// damped is where flows go, not whether a site can be reached.
const (
	FlapPenalty     = 1000.0
	SuppressPenalty = 2500.0
	ReusePenalty    = 750.0
	PenaltyHalfLife = time.Minute
	// maxPenalty bounds suppression to log2(6000/750) = 3 half-lives.
	maxPenalty = 6000.0
)

// Flap counts one flap.
func (d *Damper) Flap(now time.Time) {
	d.decay(now)
	d.penalty = min(d.penalty+FlapPenalty, maxPenalty)
	if d.penalty > SuppressPenalty {
		d.suppressed = true
	}
}

// Suppressed reports whether the path is to be avoided at now.
func (d *Damper) Suppressed(now time.Time) bool {
	d.decay(now)
	if d.penalty < ReusePenalty {
		d.suppressed = false
	}
	return d.suppressed
}

// Penalty is the decayed figure at now.
func (d *Damper) Penalty(now time.Time) float64 {
	d.decay(now)
	return d.penalty
}

func (d *Damper) decay(now time.Time) {
	if dt := now.Sub(d.at); !d.at.IsZero() && dt > 0 {
		d.penalty *= math.Exp2(-dt.Seconds() / PenaltyHalfLife.Seconds())
	}
	if now.After(d.at) {
		d.at = now
	}
}
