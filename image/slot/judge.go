package slot

import (
	"fmt"
	"time"
)

const (
	// Hold is how long a new image must be healthy without a break to be kept.
	Hold = 10 * time.Second
	// Patience is how long it may take to become so. An uplink that is slow to
	// come back must not cost a good update.
	Patience = 5 * time.Minute
)

// Expectation is what worked before an update, and must work after it.
type Expectation struct {
	Configured bool `json:"configured"` // the gateway ran
	Paths      bool `json:"paths"`      // at least one path was up
	Dashboard  bool `json:"dashboard"`  // its dashboard was reached
}

// Health is what works now.
type Health struct {
	Running   bool // the gateway answers
	PathsUp   int
	Dashboard bool
}

// Judgement is what becomes of an image on trial.
type Judgement int

// The judgements.
const (
	Wait Judgement = iota
	Keep
	GiveUp
)

// Judge decides about an image on trial.
type Judge struct {
	expect  Expectation
	started time.Time
	since   time.Time // healthy since; zero: is not
}

// NewJudge begins a trial.
func NewJudge(expect Expectation, now time.Time) *Judge {
	return &Judge{expect: expect, started: now}
}

// Observe takes what was seen at now, in rising order; why is for people.
func (j *Judge) Observe(h Health, now time.Time) (what Judgement, why string) {
	lacks := j.lacks(h)
	if lacks == "" {
		if j.since.IsZero() {
			j.since = now
		}
		if now.Sub(j.since) >= Hold {
			return Keep, "healthy"
		}
		return Wait, "healthy, being watched"
	}
	j.since = time.Time{}
	if now.Sub(j.started) >= Patience {
		return GiveUp, fmt.Sprintf("%s within %s", lacks, Patience)
	}
	return Wait, lacks
}

func (j *Judge) lacks(h Health) string {
	switch {
	case j.expect.Configured && !h.Running:
		return "the gateway does not run"
	case j.expect.Paths && h.PathsUp == 0:
		return "no path came up"
	case j.expect.Dashboard && !h.Dashboard:
		return "the dashboard is not reached"
	}
	return ""
}
