package path

import (
	"time"

	"patronus/configs"
)

// judged is one class's view.
type judged struct {
	Standing
	metric    string
	bad, good uint8
	settled   uint8
	history   [settleTicks]Score
	n         int
}

// judge grades every class and applies the hysteresis.
func (t *Tracker) judge(now time.Time) {
	window := func(d time.Duration) Quality { return t.Window(min(d, now.Sub(t.upAt)), now) }
	last := t.fast
	t.fast = window(FastWindow)
	double, short, normal := window(2*FastWindow), window(shortWindow), t.quality
	if now.Sub(t.upAt) < NormalWindow {
		normal = window(NormalWindow)
	}
	slow, slowN := t.rtts.mean()
	delayed := t.fast.Samples >= fastSamples && slowN >= 2*t.fast.Samples &&
		t.fast.Delay > fastDelayFactor*slow && t.fast.Delay > slow+fastDelayMin
	for i := range t.judged {
		j := &t.judged[i]
		sla := &t.classes.list[i].SLA
		j.Score, j.metric = ScoreOf(t.quality, *sla)
		j.Rank = rankOf(&t.quality, sla)
		// Each window speaks only for itself: the short ones are quick, the
		// long one sees small losses. Delay is judged where it is fresh.
		bad := violates(&short, sla) || violatesLoss(&t.fast, sla) || violatesLoss(&double, sla) ||
			violatesLoss(&normal, sla) || short.Samples < 3 && violates(&normal, sla)
		// Two bad seconds that are certain together are as good as two
		// ticks that are certain each.
		sure := sla.Loss > 0 && last.WorstLoss().Percent > sla.Loss && t.fast.WorstLoss().Percent > sla.Loss &&
			violatesLoss(&double, sla)
		j.step(bad, sure || t.catastrophe(sla, delayed), t)
	}
}

// catastrophe is the fast rule: loss over 20 %, or three times the usual delay
// and beyond what the class calls good.
func (t *Tracker) catastrophe(sla *configs.SLA, delayed bool) bool {
	fast := &t.fast
	if sla.Loss > 0 && (fast.LossOut.Percent > fastLoss || fast.LossIn.Percent > fastLoss) && violatesLoss(fast, sla) {
		return true
	}
	return delayed && sla.Delay > 0 && fast.Delay > time.Duration(sla.DelayGood)
}

// step advances one class by a tick: bad by its own count, or atOnce.
func (j *judged) step(bad, atOnce bool, t *Tracker) {
	before := j.Standing
	if bad || atOnce {
		j.bad, j.good, j.settled = min(j.bad+1, badTicks), 0, 0
		if atOnce || j.bad == badTicks {
			j.Violates = true
		}
	} else {
		j.bad, j.good = 0, min(j.good+1, goodTicks)
		if j.good == goodTicks {
			j.Violates = false
		}
		if t.damper.suppressed || j.Violates {
			j.settled = 0
		} else {
			j.settled = min(j.settled+1, settleTicks)
		}
	}
	j.Settled = j.settled == settleTicks
	if j.Score == NoScore {
		j.n = 0
	} else {
		j.history[j.n%settleTicks] = j.Score
		j.n++
	}
	j.Floor, j.Ceil = NoScore, NoScore
	if j.n >= settleTicks {
		j.Floor, j.Ceil = j.history[0], j.history[0]
		for _, s := range j.history[1:] {
			j.Floor, j.Ceil = min(j.Floor, s), max(j.Ceil, s)
		}
	}
	if before.Violates != j.Violates || before.Settled != j.Settled {
		t.gen++
	}
}

// unjudge clears the standings of a path that is Down or Unknown.
func (t *Tracker) unjudge() {
	for i := range t.judged {
		j := &t.judged[i]
		g := j.Group
		*j = judged{Standing: Standing{Score: NoScore, Rank: minRank, Floor: NoScore, Ceil: NoScore, Group: g}}
		if t.state == Down {
			j.Score = 0
		}
	}
}
