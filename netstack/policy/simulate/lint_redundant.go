package simulate

import (
	"cmp"
	"slices"

	"patronus/netstack/policy"
)

// fate is what is known of a rule while chains are gone through.
type fate struct {
	needed    bool     // without it some verdict of a side changes
	matched   bool     // it matches some flow
	overruled bool     // so far the Admin tier denies all that it matches
	by        ruleAt   // an Admin rule that does
	covers    []ruleAt // rules that each match all that it matches
	witness   *Witness
}

// redundant finds policies and rules without which both sides of every flow
// would get the same verdict, and rules that the Admin tier makes dead.
func (l *linter) redundant() {
	rules := make(map[ruleAt]*fate, len(l.rules))
	for at := range l.rules {
		rules[at] = &fate{overruled: true, by: noRule}
	}
	needed := map[policy.PolicyRef]bool{}
	for _, c := range l.chains {
		for p := range l.ports {
			matched := l.matched(c, p)
			base := l.judge(c, matched, noRule)
			for _, ref := range c.refs {
				if !needed[ref] && !slices.Equal(l.judge(c, matched, ruleAt{ref: ref, index: -1}).allowed, base.allowed) {
					needed[ref] = true
				}
			}
			for i, r := range c.rules {
				l.fate(rules[r.ruleAt], c, i, p, matched, &base)
			}
		}
	}
	for _, ref := range l.refs {
		if !l.selectsAny(ref) {
			continue
		}
		whole := !needed[ref]
		if whole {
			l.about(PolicyRedundant, Warning, ref, "without this policy every flow would get the same verdict")
		}
		for _, d := range directions {
			for i := range l.After.Rules(ref, d) {
				at := ruleAt{ref, d, i}
				l.reportFate(at, rules, whole)
			}
		}
	}
}

// fate books what one chain says of its rule i on ports p.
func (l *linter) fate(f *fate, c *chain, i, p int, matched []set, base *judgement) {
	m := matched[i]
	if m.empty() {
		return
	}
	r := c.rules[i]
	if r.tier != policy.NetworkTier || !m.within(base.denied) {
		f.overruled = false
	} else if f.by == noRule {
		f.by = l.denier(c, matched, m)
	}
	first := !f.matched
	f.matched = true
	if first {
		f.witness = l.witness(c.dir, c.group, m.first(), p)
	}
	if !f.needed && !slices.Equal(l.judge(c, matched, r.ruleAt).allowed, base.allowed) {
		f.needed = true
	}
	if f.needed {
		return
	}
	covers := func(j int) bool {
		q := c.rules[j]
		return j != i && (q.tier < r.tier || q.tier == r.tier && (r.tier == policy.NetworkTier || j < i)) && m.within(matched[j])
	}
	if first {
		for j := range c.rules {
			if covers(j) {
				f.covers = append(f.covers, c.rules[j].ruleAt)
			}
		}
		return
	}
	f.covers = slices.DeleteFunc(f.covers, func(at ruleAt) bool {
		j := slices.IndexFunc(c.rules, func(q *linkedRule) bool { return q.ruleAt == at })
		return j < 0 || !covers(j)
	})
}

// denier is the first Admin rule that denies some of m.
func (l *linter) denier(c *chain, matched []set, m set) ruleAt {
	both := l.newSet()
	for j, q := range c.rules {
		if q.tier != policy.AdminTier || q.action != policy.Deny {
			continue
		}
		if both.put(matched[j], m, and); !both.empty() {
			return q.ruleAt
		}
	}
	return noRule
}

func (l *linter) reportFate(at ruleAt, rules map[ruleAt]*fate, whole bool) {
	f := rules[at]
	switch {
	case !f.matched: // selectsNothing has said why
	case f.overruled:
		g := l.about(RuleOverruled, Warning, at.ref, "can never allow anything: a ClusterNetworkPolicy of the Admin tier denies all of it first").at(at.dir, at.index)
		g.Witness = f.witness
		if f.by != noRule {
			g.other(l.After.PolicyID(f.by.ref), f.by.index)
		}
	case f.needed || whole:
	default:
		by, ok := l.cover(at, rules)
		if !ok {
			return
		}
		var g *Finding
		switch {
		case by == noRule:
			g = l.about(RuleRedundant, Warning, at.ref, "other rules together decide all of it already")
		case by.ref == at.ref:
			g = l.about(RuleRedundant, Warning, at.ref, "rule %d of the same policy has all of it already", by.index).other(l.After.PolicyID(by.ref), by.index)
		default:
			g = l.about(RuleRedundant, Warning, at.ref, "another policy's rule has all of it already").other(l.After.PolicyID(by.ref), by.index)
		}
		g.at(at.dir, at.index)
		g.Witness = f.witness
	}
}

// cover is the rule to name as covering a redundant one, noRule if it takes
// several. Of two that cover each other only the later one is reported.
func (l *linter) cover(at ruleAt, rules map[ruleAt]*fate) (by ruleAt, ok bool) {
	own := slices.Clone(rules[at].covers)
	slices.SortStableFunc(own, func(a, b ruleAt) int {
		return cmp.Or(cmp.Compare(bit(a.ref != at.ref, 1), bit(b.ref != at.ref, 1)), l.After.Compare(a.ref, b.ref), cmp.Compare(a.index, b.index))
	})
	for _, q := range own {
		mutual := !rules[q].needed && slices.Contains(rules[q].covers, at)
		later := cmp.Or(l.After.Compare(q.ref, at.ref), cmp.Compare(q.index, at.index)) > 0
		if !mutual || !later {
			return q, true
		}
	}
	return noRule, len(own) == 0
}

// samePriority finds rules of one tier and priority that contradict each other:
// the API leaves open which of them decides.
func (l *linter) samePriority() {
	type pair struct{ a, b ruleAt }
	seen := map[pair]bool{}
	both, taken := l.newSet(), l.newSet()
	for _, c := range l.chains {
		for p := range l.ports {
			matched := l.matched(c, p)
			clear(taken)
			for i, r := range c.rules {
				if r.tier == policy.NetworkTier {
					continue
				}
				for j := i + 1; j < len(c.rules); j++ {
					q := c.rules[j]
					if q.tier != r.tier || q.priority != r.priority {
						break
					}
					if q.ref == r.ref || q.action == r.action || seen[pair{r.ruleAt, q.ruleAt}] {
						continue
					}
					both.put(matched[i], matched[j], and)
					both.put(both, taken, except)
					if both.empty() {
						continue
					}
					seen[pair{r.ruleAt, q.ruleAt}] = true
					f := l.about(SamePriority, Error, q.ref, "says %s where a policy of the same tier and priority %d says %s: the API leaves open which one decides",
						q.action, q.priority, r.action).at(c.dir, q.index).other(l.After.PolicyID(r.ref), r.index)
					f.Witness = l.witness(c.dir, c.group, both.first(), p)
				}
				if i+1 < len(c.rules) && c.rules[i+1].priority == r.priority && c.rules[i+1].tier == r.tier && c.rules[i+1].ref != r.ref {
					continue
				}
				taken.put(taken, matched[i], or)
			}
		}
	}
}
