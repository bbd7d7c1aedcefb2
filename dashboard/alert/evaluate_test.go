package alert

import (
	"context"
	"encoding/json"
	"math"
	"reflect"
	"testing"
	"time"

	"pgregory.net/rapid"

	"patronus/configs"
)

var start = time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)

func latencyRule(hold, calm time.Duration) configs.AlertRule {
	return configs.AlertRule{
		ID: "slow", Name: "Slow", Severity: configs.Warning, ClearFor: configs.Duration(calm),
		Condition: configs.AlertCondition{Type: configs.PathLatency, ThresholdMs: 50, Duration: configs.Duration(hold)},
	}
}

func latency(at time.Time, v float64) *Facts {
	return &Facts{At: at, Paths: []PathFact{{ID: "a.w~b.w", Site: "a", LatencyMs: v, LossPct: math.NaN(), Down: math.NaN()}}}
}

// reborn is a state that was written down and read again.
func reborn(t rapid.TB, s *State) *State {
	out := NewState()
	for key, e := range s.entries {
		text, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		var back entry
		if err := json.Unmarshal(text, &back); err != nil {
			t.Fatal(err)
		}
		out.entries[key] = &back
	}
	return out
}

func values() *rapid.Generator[[]float64] {
	return rapid.SliceOfN(rapid.SampledFrom([]float64{10, 44, 45, 46, 49, 50, 51, 80, math.NaN()}), 1, 300)
}

// What fires has held for as long as the rule says, at every step; what ends
// has been calm for as long as it says; and between two alerts lie both.
func TestHoldAndHysteresis(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		step := time.Second
		hold := time.Duration(rapid.IntRange(0, 10).Draw(t, "hold")) * step
		calm := time.Duration(rapid.IntRange(1, 10).Draw(t, "calm")) * step
		all := values().Draw(t, "values")
		rules := []configs.AlertRule{latencyRule(hold, calm)}
		s := NewState()
		firing := false
		for i, v := range all {
			now := start.Add(time.Duration(i) * step)
			for _, a := range Step(rules, s, latency(now, v)) {
				length, want := hold, func(v float64) bool { return v > 50 }
				if a.State == Resolved {
					length, want = calm, func(v float64) bool { return v <= 45 }
				}
				if firing == (a.State == Firing) {
					t.Fatalf("step %d: %s twice", i, a.State)
				}
				firing = a.State == Firing
				n := int(length / step)
				if i < n {
					t.Fatalf("step %d: %s before its time", i, a.State)
				}
				for k := i - n; k <= i; k++ {
					if !want(all[k]) {
						t.Fatalf("step %d: %s although %v at %d", i, a.State, all[k], k)
					}
				}
			}
		}
	})
}

// A restart anywhere changes nothing.
func TestRestart(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rules := []configs.AlertRule{
			latencyRule(3*time.Second, 4*time.Second),
			{ID: "blocks", Name: "Blocks", Severity: configs.Info, ClearFor: configs.Duration(2 * time.Second), Condition: configs.AlertCondition{Type: configs.PolicyViolation, Count: 5, Window: configs.Duration(10 * time.Second)}},
		}
		one, two := NewState(), NewState()
		for i, v := range values().Draw(t, "values") {
			f := latency(start.Add(time.Duration(i)*time.Second), v)
			f.Blocks = []BlockFact{{Policy: "p", Site: "a", Count: uint64(rapid.IntRange(0, 2).Draw(t, "blocks"))}}
			a, b := Step(rules, one, f), Step(rules, two, f)
			if !reflect.DeepEqual(a, b) {
				t.Fatalf("step %d: %v and %v", i, a, b)
			}
			if rapid.Bool().Draw(t, "restart") {
				two = reborn(t, two)
			}
		}
	})
}

func TestKinds(t *testing.T) {
	hour := configs.Duration(time.Hour)
	tests := []struct {
		name string
		c    configs.AlertCondition
		f    Facts
		want string
	}{
		{"loss", configs.AlertCondition{Type: configs.PathLoss, ThresholdPct: 2}, Facts{Paths: []PathFact{{ID: "x", Site: "a", LossPct: 2.5}}}, "x"},
		{"loss below", configs.AlertCondition{Type: configs.PathLoss, ThresholdPct: 2}, Facts{Paths: []PathFact{{ID: "x", LossPct: 2}}}, ""},
		{"down", configs.AlertCondition{Type: configs.PathDown}, Facts{Paths: []PathFact{{ID: "x", Down: 1}}}, "x"},
		{"up", configs.AlertCondition{Type: configs.PathDown}, Facts{Paths: []PathFact{{ID: "x"}}}, ""},
		{"cold", configs.AlertCondition{Type: configs.PathDown}, Facts{Paths: []PathFact{{ID: "x", Down: math.NaN()}}}, ""},
		{"other path", configs.AlertCondition{Type: configs.PathDown, PathID: "hq.*"}, Facts{Paths: []PathFact{{ID: "x", Down: 1}}}, ""},
		{"pattern", configs.AlertCondition{Type: configs.PathDown, PathID: "hq.*"}, Facts{Paths: []PathFact{{ID: "hq.w~b.w", Down: 1}}}, "hq.w~b.w"},
		{"site", configs.AlertCondition{Type: configs.SiteUnreachable, SiteID: "a"}, Facts{Sites: []SiteFact{{"b", 1}, {"a", 1}}}, "a"},
		{"policy", configs.AlertCondition{Type: configs.PolicyViolation, Count: 3, Window: hour}, Facts{Blocks: []BlockFact{{"p", "a", 2}, {"p", "b", 1}}}, "p"},
		{"few", configs.AlertCondition{Type: configs.PolicyViolation, Count: 3, Window: hour}, Facts{Blocks: []BlockFact{{"p", "a", 2}}}, ""},
	}
	for _, test := range tests {
		test.f.At = start
		got := Step([]configs.AlertRule{{ID: "r", Name: "R", Severity: configs.Info, Condition: test.c}}, NewState(), &test.f)
		switch {
		case test.want == "" && len(got) > 0, test.want != "" && (len(got) != 1 || got[0].Target != test.want || got[0].State != Firing):
			t.Errorf("%s: %+v", test.name, got)
		}
	}
}

func TestGoneAndRemoved(t *testing.T) {
	rules := []configs.AlertRule{latencyRule(0, time.Second)}
	for name, test := range map[string]struct {
		rules []configs.AlertRule
		after time.Duration
		why   string
	}{"gone": {rules, goneAfter + time.Second, "gone"}, "rule": {nil, time.Second, "rule changed"}} {
		s := NewState()
		Step(rules, s, latency(start, 99))
		got := Step(test.rules, s, &Facts{At: start.Add(test.after)})
		if len(got) != 1 || got[0].State != Resolved || got[0].Why != test.why || len(s.Alerts()) != 0 {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

type pastValues []float64

func (p pastValues) Replay(ctx context.Context, _ configs.AlertCondition, from, _ time.Time, step time.Duration, f func(*Facts, bool)) error {
	for i, v := range p {
		f(latency(from.Add(time.Duration(i)*step), v), false)
	}
	f(nil, true)
	return ctx.Err()
}

// Seven bad spells of a week are seven alerts, with their times.
func TestBacktest(t *testing.T) {
	var p pastValues
	for range 7 {
		for range 100 {
			p = append(p, 10)
		}
		for range 10 {
			p = append(p, 90)
		}
	}
	p = append(p, 10, 10, 10)
	got, err := Backtest(t.Context(), p, latencyRule(5*time.Minute, time.Minute), start, start.Add(7*24*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	if got.Fired != 7 || got.Step != time.Minute || got.Targets != 1 || got.Truncated {
		t.Errorf("%+v", got)
	}
	last := got.Episodes[len(got.Episodes)-1]
	if want := start.Add(105 * time.Minute); !last.FiredAt.Equal(want) || !last.Since.Equal(start.Add(100*time.Minute)) || last.EndedAt.IsZero() {
		t.Errorf("the first episode is %+v", last)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if got, err = Backtest(ctx, p, latencyRule(0, 0), start, start.Add(time.Hour)); err != nil || !got.Truncated {
		t.Errorf("%v %+v", err, got.Truncated)
	}
}
