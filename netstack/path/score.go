package path

import (
	"fmt"
	"math"
	"strconv"
	"time"

	"patronus/configs"
)

// Score grades a path for one class: 0 (useless) to 100 (nothing to gain).
type Score int16

// NoScore: there is no data. It is null in JSON, never 0 and never 100.
const NoScore Score = -1

// MarshalJSON writes a number or null.
func (s Score) MarshalJSON() ([]byte, error) {
	if s < 0 {
		return []byte("null"), nil
	}
	return strconv.AppendInt(nil, int64(s), 10), nil
}

// UnmarshalJSON reads a number or null.
func (s *Score) UnmarshalJSON(b []byte) error {
	if string(b) == "null" {
		*s = NoScore
		return nil
	}
	n, err := strconv.ParseInt(string(b), 10, 16)
	if err != nil || n < 0 || n > 100 {
		return fmt.Errorf("not a score: %.20q", b)
	}
	*s = Score(n)
	return nil
}

// The metrics that a score may be limited by.
const (
	MetricDelay = "delay"
	MetricPDV   = "pdv"
	MetricLoss  = "loss"
)

// ScoreOf grades q: round(100*min u) over the metrics that the SLA judges,
// where u = clamp((bad-x)/(bad-good), 0, 1). metric names the one that limits
// the score, or is empty if none does (100 or [NoScore]). The result of
// unmeasured quality is NoScore; an SLA that judges nothing gives 100.
func ScoreOf(q Quality, sla configs.SLA) (s Score, metric string) {
	u, metric, ok := utility(&q, &sla)
	if !ok {
		return NoScore, ""
	}
	s = Score(math.Round(100 * min(max(u, 0), 1)))
	if s == 100 {
		metric = ""
	}
	return s, metric
}

// Rank is the score without the clamp at 0, so that two paths that are both
// useless can still be compared. It never exceeds 100.
type Rank int16

const minRank = -10000

func rankOf(q *Quality, sla *configs.SLA) Rank {
	u, _, ok := utility(q, sla)
	if !ok {
		return minRank
	}
	return Rank(math.Round(max(100*u, minRank)))
}

// utility is min u, at most 1, not clamped below.
func utility(q *Quality, sla *configs.SLA) (u float64, metric string, ok bool) {
	if !q.Measured() {
		return 0, "", false
	}
	u, ok = 1, true
	judge := func(name string, x, good, bad float64) {
		if bad <= 0 {
			return
		}
		if v := grade(x, good, bad); v < u {
			u, metric = v, name
		}
	}
	if q.Samples > 0 {
		judge(MetricDelay, float64(q.Delay), float64(sla.DelayGood), float64(sla.Delay))
		judge(MetricPDV, float64(q.PDVp95), float64(sla.PDVGood), float64(sla.PDV))
	}
	judge(MetricLoss, q.WorstLoss().Percent, sla.LossGood, sla.Loss)
	return u, metric, ok
}

func grade(x, good, bad float64) float64 {
	if good >= bad { // a step: no room between good and bad
		if x <= bad {
			return 1
		}
		return (bad - x) / bad
	}
	return min((bad-x)/(bad-good), 1)
}

// violates reports whether q is beyond the SLA for certain: for loss, the
// interval's lower bound is, of one direction or of both pooled (if their mean
// is beyond the limit, so is one of them).
func violates(q *Quality, sla *configs.SLA) bool {
	if q.Samples >= 3 {
		if sla.Delay > 0 && q.Delay > time.Duration(sla.Delay) {
			return true
		}
		if sla.PDV > 0 && q.PDVp95 > time.Duration(sla.PDV) {
			return true
		}
	}
	return violatesLoss(q, sla)
}

func violatesLoss(q *Quality, sla *configs.SLA) bool {
	if sla.Loss <= 0 {
		return false
	}
	return proves(q.LossOut, sla.Loss) || proves(q.LossIn, sla.Loss) || proves(q.LossOut.plus(q.LossIn), sla.Loss)
}

// proves asks for three lost packets beside the bound: of very small samples
// Wilson's interval promises too much (1 lost of 1 would prove 20 %).
func proves(l Loss, limit float64) bool { return l.Lost >= 3 && l.Low > limit }
