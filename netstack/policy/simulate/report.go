package simulate

import (
	"cmp"
	"slices"
	"time"

	"patronus/netstack/flow"
	"patronus/netstack/packet"
	"patronus/netstack/policy"
)

// Counts are flows and what they carried in both directions.
type Counts struct {
	Flows   uint64 `json:"flows"`
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"`
}

func (c *Counts) add(d Counts) {
	c.Flows += d.Flows
	c.Packets += d.Packets
	c.Bytes += d.Bytes
}

// Changes counts flows that would get another verdict.
type Changes struct {
	Blocked Counts `json:"blocked"` // were allowed
	Allowed Counts `json:"allowed"` // were denied
}

func (c *Changes) add(d *Changes) {
	c.Blocked.add(d.Blocked)
	c.Allowed.add(d.Allowed)
}

func (c *Changes) of(blocked bool) *Counts {
	if blocked {
		return &c.Blocked
	}
	return &c.Allowed
}

func (c *Changes) flows() uint64 { return c.Blocked.Flows + c.Allowed.Flows }

// Report is the outcome of a replay. Lists are sorted, most flows first.
type Report struct {
	Records   uint64    `json:"records"`
	Unchanged uint64    `json:"unchanged"`
	First     time.Time `json:"first,omitzero"` // of the records
	Last      time.Time `json:"last,omitzero"`
	Changes
	Sites    []SiteChanges   `json:"sites"`
	Policies []PolicyChanges `json:"policies"`
	Labels   []LabelChanges  `json:"labels"`
	Samples  []Sample        `json:"samples"`
}

// SiteChanges are those between two sites; "" is none.
type SiteChanges struct {
	From string `json:"from"`
	To   string `json:"to"`
	Changes
}

// PolicyChanges are those that a rule decides: the one that would block, or,
// of flows that would be allowed, the one that denied them.
type PolicyChanges struct {
	Policy string `json:"policy"`
	Rule   int32  `json:"rule"`
	Changes
}

// LabelChanges are those with a label at one end.
type LabelChanges struct {
	End   string `json:"end"` // from or to
	Label string `json:"label"`
	Changes
}

// Sample is one flow that would get another verdict.
type Sample struct {
	At      time.Time `json:"at,omitzero"`
	Flow    string    `json:"flow_key"`
	From    string    `json:"from"` // namespace/name, or the address
	To      string    `json:"to"`
	Bytes   uint64    `json:"bytes"`
	Was     string    `json:"was"` // allowed or denied
	WasBy   string    `json:"was_by,omitempty"`
	WasRule int32     `json:"was_rule"`
	Would   string    `json:"would"`
	By      string    `json:"by,omitempty"`
	Rule    int32     `json:"rule"`
	Reason  string    `json:"reason"`
	place   int64
}

// ruleKey is what samples and policy counts are kept by. The deciding policy is
// the candidate's for blocked flows and the recorded one for allowed flows.
type ruleKey struct {
	blocked bool
	ref     policy.PolicyRef
	name    uint32
	rule    int32
}

// kept is a sample before names are looked up.
type kept struct {
	place    int64
	record   Record
	decision policy.Decision
	from, to *party
}

type ruleTally struct {
	Counts
	samples []kept // the first by place
}

// tally is what one worker counts.
type tally struct {
	limit              int
	records, unchanged uint64
	first, last        int64
	rules              map[ruleKey]*ruleTally
	sites              map[[2]uint32]*Changes
	ends               [2][]Changes // by party number
}

func newTally(limit int) *tally {
	return &tally{limit: limit, rules: map[ruleKey]*ruleTally{}, sites: map[[2]uint32]*Changes{}}
}

// changed books a record that would get another verdict.
func (t *tally) changed(r *Record, d *policy.Decision, from, to *party, place int64) {
	n := Counts{1, r.Packets, r.Bytes}
	blocked := r.Allowed
	k := ruleKey{blocked: blocked, ref: policy.NoPolicy, name: NoName, rule: r.Rule}
	if blocked {
		k.ref, k.rule = d.Policy, d.Rule
	} else {
		k.name = r.Policy
	}
	x := t.rules[k]
	if x == nil {
		x = new(ruleTally)
		t.rules[k] = x
	}
	x.add(n)
	if len(x.samples) < t.limit || t.limit > 0 && place < x.samples[len(x.samples)-1].place {
		x.keep(kept{place, *r, *d, from, to}, t.limit)
	}
	pair := [2]uint32{from.site, to.site}
	s := t.sites[pair]
	if s == nil {
		s = new(Changes)
		t.sites[pair] = s
	}
	s.of(blocked).add(n)
	for i, p := range [2]*party{from, to} {
		if p.number == Nowhere {
			continue
		}
		for int(p.number) >= len(t.ends[i]) {
			t.ends[i] = append(t.ends[i], make([]Changes, max(64, len(t.ends[i])))...)
		}
		t.ends[i][p.number].of(blocked).add(n)
	}
}

func (x *ruleTally) keep(s kept, limit int) {
	at, _ := slices.BinarySearchFunc(x.samples, s, func(a, b kept) int { return cmp.Compare(a.place, b.place) })
	x.samples = slices.Insert(x.samples, at, s)
	x.samples = x.samples[:min(len(x.samples), limit)]
}

func (t *tally) merge(u *tally) {
	t.records += u.records
	t.unchanged += u.unchanged
	if t.first == 0 || u.first != 0 && u.first < t.first {
		t.first = u.first
	}
	t.last = max(t.last, u.last)
	for k, x := range u.rules {
		y := t.rules[k]
		if y == nil {
			t.rules[k] = x
			continue
		}
		y.add(x.Counts)
		for _, s := range x.samples {
			y.keep(s, t.limit)
		}
	}
	for k, s := range u.sites {
		if have := t.sites[k]; have != nil {
			have.add(s)
		} else {
			t.sites[k] = s
		}
	}
	for i := range u.ends {
		if n := len(u.ends[i]) - len(t.ends[i]); n > 0 {
			t.ends[i] = append(t.ends[i], make([]Changes, n)...)
		}
		for j := range u.ends[i] {
			t.ends[i][j].add(&u.ends[i][j])
		}
	}
}

// report puts names to what was counted.
func (t *tally) report(d *dictionary, rules *policy.Ruleset) *Report {
	out := &Report{
		Records: t.records, Unchanged: t.unchanged,
		Sites: []SiteChanges{}, Policies: []PolicyChanges{}, Labels: []LabelChanges{}, Samples: []Sample{},
	}
	if t.first != 0 {
		out.First, out.Last = time.Unix(0, t.first).UTC(), time.Unix(0, t.last).UTC()
	}
	type named struct {
		policy string
		rule   int32
	}
	byPolicy := map[named]*Changes{}
	for k, x := range t.rules {
		out.Changes.of(k.blocked).add(x.Counts)
		id := d.name(k.name)
		if k.blocked {
			id = rules.PolicyID(k.ref)
		}
		c := byPolicy[named{id, k.rule}]
		if c == nil {
			c = new(Changes)
			byPolicy[named{id, k.rule}] = c
		}
		c.of(k.blocked).add(x.Counts)
		for i := range x.samples {
			out.Samples = append(out.Samples, x.samples[i].sample(d, rules))
		}
	}
	for k, c := range byPolicy {
		out.Policies = append(out.Policies, PolicyChanges{k.policy, k.rule, *c})
	}
	sites := make([]string, len(d.sites))
	for name, i := range d.sites {
		sites[i] = name
	}
	for k, c := range t.sites {
		out.Sites = append(out.Sites, SiteChanges{sites[k[0]], sites[k[1]], *c})
	}
	out.Labels = t.labels(d)
	slices.SortFunc(out.Policies, func(a, b PolicyChanges) int {
		return cmp.Or(-cmp.Compare(a.flows(), b.flows()), cmp.Compare(a.Policy, b.Policy), cmp.Compare(a.Rule, b.Rule))
	})
	slices.SortFunc(out.Sites, func(a, b SiteChanges) int {
		return cmp.Or(-cmp.Compare(a.flows(), b.flows()), cmp.Compare(a.From, b.From), cmp.Compare(a.To, b.To))
	})
	slices.SortFunc(out.Samples, func(a, b Sample) int { return cmp.Compare(a.place, b.place) })
	return out
}

// labels adds up the changes of the parties that have each label.
func (t *tally) labels(d *dictionary) []LabelChanges {
	type key struct {
		end   int
		label string
	}
	sum := map[key]*Changes{}
	for end := range t.ends {
		for i := range min(len(t.ends[end]), len(d.parties)) {
			c := &t.ends[end][i]
			if c.flows() == 0 || d.parties[i].Namespace == "" {
				continue
			}
			add := func(label string) {
				if sum[key{end, label}] == nil {
					sum[key{end, label}] = new(Changes)
				}
				sum[key{end, label}].add(c)
			}
			add("namespace " + d.parties[i].Namespace)
			for k, v := range d.parties[i].Labels {
				add(k + "=" + v)
			}
		}
	}
	out := make([]LabelChanges, 0, len(sum))
	for k, c := range sum {
		out = append(out, LabelChanges{[2]string{"from", "to"}[k.end], k.label, *c})
	}
	slices.SortFunc(out, func(a, b LabelChanges) int {
		return cmp.Or(-cmp.Compare(a.flows(), b.flows()), cmp.Compare(a.End, b.End), cmp.Compare(a.Label, b.Label))
	})
	return out
}

func (s *kept) sample(d *dictionary, rules *policy.Ruleset) Sample {
	name := func(p *party, a packet.Addr) string {
		if p.Namespace == "" {
			return a.Netip().String()
		}
		return p.Namespace + "/" + p.Name
	}
	word := func(allowed bool) string {
		if allowed {
			return "allowed"
		}
		return "denied"
	}
	r := &s.record
	out := Sample{
		Flow: flow.FormatKey(&r.Key), From: name(s.from, r.Key.Src), To: name(s.to, r.Key.Dst), Bytes: r.Bytes,
		Was: word(r.Allowed), WasBy: d.name(r.Policy), WasRule: r.Rule, Would: word(s.decision.Allowed),
		By: rules.PolicyID(s.decision.Policy), Rule: s.decision.Rule, Reason: s.decision.Reason.String(), place: s.place,
	}
	if r.At != 0 {
		out.At = time.Unix(0, r.At).UTC()
	}
	return out
}
