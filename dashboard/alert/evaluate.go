package alert

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"maps"
	"math"
	"slices"
	"time"

	"patronus/configs"
)

// PathFact is what is known of a path; NaN is what is not.
type PathFact struct {
	ID, Site  string
	LatencyMs float64
	LossPct   float64
	Down      float64 // 1 or 0
}

// SiteFact is what is known of a site.
type SiteFact struct {
	Site        string
	Unreachable float64 // 1, 0 or NaN
}

// BlockFact is how many flows a policy blocked since the step before.
type BlockFact struct {
	Policy, Site string
	Count        uint64
}

// Facts are what is known at a time. What is not mentioned is not known.
type Facts struct {
	At     time.Time
	Paths  []PathFact
	Sites  []SiteFact
	Blocks []BlockFact
}

// The phases of an alert. Counting is before there is one: a window has blocks.
const (
	Counting = "counting"
	Pending  = "pending"
	Firing   = "firing"
	Resolved = "resolved"
)

// Alert is one rule at one path, site or policy.
type Alert struct {
	ID       string            `json:"id"`
	Rule     string            `json:"rule_id"`
	Name     string            `json:"name"`
	Kind     configs.AlertKind `json:"condition"`
	Severity configs.Severity  `json:"severity"`
	Target   string            `json:"target"`
	Site     string            `json:"site_id,omitempty"`
	State    string            `json:"state"`
	Value    float64           `json:"value"`
	Limit    float64           `json:"threshold"`
	// Since is when the condition began to hold, FiredAt when it had held for
	// as long as the rule asks.
	Since      time.Time `json:"since"`
	FiredAt    time.Time `json:"fired_at,omitzero"`
	ResolvedAt time.Time `json:"resolved_at,omitzero"`
	// Why says how it ended: recovered, gone, or rule changed.
	Why   string `json:"why,omitempty"`
	Acked *Ack   `json:"acknowledged,omitempty"`
	Muted string `json:"muted_by,omitempty"`
}

// Ack says who has taken an alert.
type Ack struct {
	By   string    `json:"by"`
	At   time.Time `json:"at"`
	Note string    `json:"note,omitempty"`
}

// entry is an alert with what Step must remember of it.
type entry struct {
	Alert
	Calm    time.Time `json:"calm,omitzero"` // since when it does not hold any more
	Seen    time.Time `json:"seen"`          // when it was last measured
	Told    bool      `json:"told,omitempty"`
	Blocks  []bucket  `json:"blocks,omitempty"`
	touched bool
}

type bucket struct {
	At int64  `json:"at"` // Unix ms
	N  uint64 `json:"n"`
}

// State is what Step remembers; it survives being encoded and decoded.
type State struct {
	entries map[string]*entry
	gone    []string // keys of entries that were forgotten
}

// NewState is a state in which nothing was seen yet.
func NewState() *State { return &State{entries: map[string]*entry{}} }

// Alerts are those that are pending or firing; copies.
func (s *State) Alerts() []Alert {
	out := make([]Alert, 0, len(s.entries))
	for _, key := range slices.Sorted(maps.Keys(s.entries)) {
		if e := s.entries[key]; e.State != Counting {
			out = append(out, e.Alert)
		}
	}
	return out
}

// goneAfter is how long what an alert is about may be unknown.
const goneAfter = 10 * time.Minute

// maxEntries bounds what is remembered: rules times paths.
const maxEntries = 50_000

// Step judges facts by rules and returns the alerts that began or ended. It
// changes s and nothing else, and asks no clock.
//
// An alert begins when the value was above its threshold at every step for as
// long as the rule says; unknown values begin anew. It ends when the value was
// at most the lower threshold at every step of the calm time. In between
// nothing changes, so that a value that wavers about a threshold makes one
// alert. What has been unknown for ten minutes is gone.
func Step(rules []configs.AlertRule, s *State, f *Facts) []Alert {
	var out []Alert
	live := map[string]bool{}
	for i := range rules {
		r := &rules[i]
		if !r.Active() {
			continue
		}
		live[r.ID] = true
		switch r.Condition.Type {
		case configs.PolicyViolation:
			out = s.blocks(r, f, out)
		case configs.SiteUnreachable:
			for k := range f.Sites {
				if x := &f.Sites[k]; r.Condition.Matches(r.Condition.SiteID, x.Site) {
					out = s.judge(r, x.Site, x.Site, x.Unreachable, f.At, out)
				}
			}
		default:
			for k := range f.Paths {
				x := &f.Paths[k]
				if r.Condition.Matches(r.Condition.PathID, x.ID) && r.Condition.Matches(r.Condition.SiteID, x.Site) {
					out = s.judge(r, x.ID, x.Site, x.value(r.Condition.Type), f.At, out)
				}
			}
		}
	}
	for key, e := range s.entries {
		switch {
		case !live[e.Rule]:
			out = s.end(key, "rule changed", f.At, out)
		case f.At.Sub(e.Seen) > goneAfter:
			out = s.end(key, "gone", f.At, out)
		}
	}
	slices.SortFunc(out, func(a, b Alert) int {
		return cmp.Or(cmp.Compare(a.Rule, b.Rule), cmp.Compare(a.Target, b.Target))
	})
	return out
}

func (p *PathFact) value(k configs.AlertKind) float64 {
	switch k {
	case configs.PathLatency:
		return p.LatencyMs
	case configs.PathLoss:
		return p.LossPct
	}
	return p.Down
}

func keyOf(rule, target string) string { return rule + " " + target }

// judge takes one value.
func (s *State) judge(r *configs.AlertRule, target, site string, v float64, now time.Time, out []Alert) []Alert {
	key := keyOf(r.ID, target)
	e := s.entries[key]
	over, under := r.Threshold()
	switch {
	case math.IsNaN(v):
		if e != nil && e.State == Pending {
			s.drop(key)
		} else if e != nil && !e.Calm.IsZero() {
			e.Calm, e.touched = time.Time{}, true
		}
		return out
	case v > over && e == nil:
		if len(s.entries) >= maxEntries {
			return out
		}
		e = &entry{}
		s.entries[key] = e
		fallthrough
	case v > over && e.State == Counting:
		blocks := e.Blocks
		*e = entry{Alert: Alert{ID: idOf(key, now), Rule: r.ID, Target: target, Site: site, State: Pending, Since: now}, Blocks: blocks, touched: true}
	case e == nil || e.State == Counting:
		return out
	}
	e.Name, e.Kind, e.Severity = r.Name, r.Condition.Type, r.Severity
	e.Value, e.Limit, e.Seen = v, over, now
	switch {
	case e.State == Pending && v <= over:
		s.drop(key)
	case e.State == Pending && now.Sub(e.Since) >= r.Hold():
		e.State, e.FiredAt, e.touched = Firing, now, true
		return append(out, e.Alert)
	case e.State == Firing && v > under || e.State == Firing && v > over:
		if !e.Calm.IsZero() {
			e.Calm, e.touched = time.Time{}, true
		}
	case e.State == Firing:
		if e.Calm.IsZero() {
			e.Calm, e.touched = now, true
		}
		if now.Sub(e.Calm) >= r.Calm() {
			return s.end(key, "recovered", now, out)
		}
	}
	return out
}

// drop forgets what is not an alert (any more); blocks go on being counted.
func (s *State) drop(key string) {
	e := s.entries[key]
	e.touched = true
	if len(e.Blocks) > 0 {
		e.Alert = Alert{Rule: e.Rule, Target: e.Target, Site: e.Site, State: Counting}
		e.Calm, e.Told = time.Time{}, false
		return
	}
	s.forget(key)
}

func (s *State) forget(key string) {
	delete(s.entries, key)
	s.gone = append(s.gone, key)
}

func (s *State) end(key, why string, now time.Time, out []Alert) []Alert {
	e := s.entries[key]
	if e.State == Firing {
		a := e.Alert
		a.State, a.ResolvedAt, a.Why = Resolved, now, why
		out = append(out, a)
	}
	if why != "recovered" {
		e.Blocks = nil
	}
	s.drop(key)
	return out
}

// blocks counts what policies blocked within the rule's window.
func (s *State) blocks(r *configs.AlertRule, f *Facts, out []Alert) []Alert {
	now := f.At.UnixMilli()
	for _, b := range f.Blocks {
		if b.Count == 0 || !r.Condition.Matches(r.Condition.PolicyID, b.Policy) || !r.Condition.Matches(r.Condition.SiteID, b.Site) {
			continue
		}
		key := keyOf(r.ID, b.Policy)
		e := s.entries[key]
		if e == nil {
			if len(s.entries) >= maxEntries {
				continue
			}
			e = &entry{Alert: Alert{Rule: r.ID, Target: b.Policy, Site: b.Site, State: Counting}}
			s.entries[key] = e
		}
		e.touched = true
		// A minute's worth at most per bucket keeps a long window small.
		grain := max(1, time.Duration(r.Condition.Window).Milliseconds()/60)
		if n := len(e.Blocks); n > 0 && e.Blocks[n-1].At/grain == now/grain {
			e.Blocks[n-1].N += b.Count
			continue
		}
		e.Blocks = append(e.Blocks, bucket{At: now, N: b.Count})
	}
	from := f.At.Add(-time.Duration(r.Condition.Window)).UnixMilli()
	for key, e := range s.entries {
		if e.Rule != r.ID {
			continue
		}
		e.Seen = f.At
		if len(e.Blocks) > 0 && e.Blocks[0].At <= from {
			e.Blocks = slices.DeleteFunc(e.Blocks, func(b bucket) bool { return b.At <= from })
			e.touched = true
		}
		var n uint64
		for _, b := range e.Blocks {
			n += b.N
		}
		out = s.judge(r, e.Target, e.Site, float64(n), f.At, out)
		if e := s.entries[key]; e != nil && e.State == Counting && len(e.Blocks) == 0 {
			s.forget(key)
		}
	}
	return out
}

// idOf is the same when the same facts are judged again.
func idOf(key string, at time.Time) string {
	h := fnv.New64a()
	fmt.Fprintf(h, "%s %d", key, at.UnixMilli())
	return fmt.Sprintf("a%016x", h.Sum64())
}
