package alert

import (
	"context"
	"errors"
	"slices"
	"time"

	"patronus/configs"
)

// History replays what was known, for a rule's condition: facts in the order of
// their times, target after target, each target's own times from from on. last
// says that a target's facts are over.
type History interface {
	Replay(ctx context.Context, c configs.AlertCondition, from, to time.Time, step time.Duration, f func(facts *Facts, last bool)) error
}

// Episode is one time that a rule would have fired.
type Episode struct {
	Target  string    `json:"target"`
	Site    string    `json:"site_id,omitempty"`
	Since   time.Time `json:"since"`
	FiredAt time.Time `json:"fired_at"`
	// EndedAt is absent while it would still be firing.
	EndedAt time.Time `json:"ended_at,omitzero"`
	Value   float64   `json:"value"`
}

// Trial is what a rule would have done.
type Trial struct {
	From    time.Time     `json:"from"`
	To      time.Time     `json:"to"`
	Step    time.Duration `json:"-"`
	StepMs  int64         `json:"step_ms"`
	Targets int           `json:"targets"`
	Fired   int           `json:"fired"`
	// Episodes are the newest ones, at most a thousand.
	Episodes []Episode `json:"episodes"`
	// Truncated: there was not the time to look at all of it.
	Truncated bool `json:"truncated"`
}

const (
	maxEpisodes = 1000
	finestStep  = 10 * time.Second
	mostSteps   = 10_080 // a week in minutes
)

// Backtest judges the past by a rule, with the function that judges the
// present. When ctx ends it returns what it has, as truncated.
func Backtest(ctx context.Context, h History, r configs.AlertRule, from, to time.Time) (Trial, error) {
	step := max(finestStep, (to.Sub(from) / mostSteps).Round(time.Second))
	t := Trial{From: from, To: to, Step: step, StepMs: step.Milliseconds(), Episodes: []Episode{}}
	on := true
	r.Enabled = &on
	rules := []configs.AlertRule{r}
	s := NewState()
	open := map[string]int{}
	err := h.Replay(ctx, r.Condition, from, to, step, func(f *Facts, last bool) {
		if !last {
			for _, a := range Step(rules, s, f) {
				if a.State == Resolved {
					t.Episodes[open[a.ID]].EndedAt = a.ResolvedAt
					continue
				}
				open[a.ID] = len(t.Episodes)
				t.Episodes = append(t.Episodes, Episode{Target: a.Target, Site: a.Site, Since: a.Since, FiredAt: a.FiredAt, Value: a.Value})
			}
			return
		}
		t.Targets++
		s = NewState()
	})
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		t.Truncated, err = true, nil
	}
	t.Fired = len(t.Episodes)
	slices.SortFunc(t.Episodes, func(a, b Episode) int { return b.FiredAt.Compare(a.FiredAt) })
	t.Episodes = t.Episodes[:min(len(t.Episodes), maxEpisodes)]
	return t, err
}
