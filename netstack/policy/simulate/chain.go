package simulate

import (
	"encoding/binary"
	"math/bits"
	"slices"

	"patronus/netstack/policy"
)

// set is a set of groups, by index. All sets of a lint are of one length.
type set []uint64

func (s set) has(i int) bool { return s[i/64]>>(i%64)&1 != 0 }
func (s set) add(i int)      { s[i/64] |= 1 << (i % 64) }

func (s set) empty() bool {
	for _, w := range s {
		if w != 0 {
			return false
		}
	}
	return true
}

// first is the smallest member, -1 if there is none.
func (s set) first() int {
	for w, word := range s {
		if word != 0 {
			return w*64 + bits.TrailingZeros64(word)
		}
	}
	return -1
}

func (s set) within(t set) bool {
	for i := range s {
		if s[i]&^t[i] != 0 {
			return false
		}
	}
	return true
}

// put sets s to f of the words of a and b, which may be s.
func (s set) put(a, b set, f func(x, y uint64) uint64) {
	for i := range s {
		s[i] = f(a[i], b[i])
	}
}

func and(x, y uint64) uint64    { return x & y }
func or(x, y uint64) uint64     { return x | y }
func except(x, y uint64) uint64 { return x &^ y }

// ruleAt is a rule's place.
type ruleAt struct {
	ref   policy.PolicyRef
	dir   policy.Direction
	index int
}

// noRule is no rule's place.
var noRule = ruleAt{ref: policy.NoPolicy, index: -1}

// linkedRule is a rule with the groups that are its peers.
type linkedRule struct {
	ruleAt
	tier     policy.Tier
	priority int32
	action   policy.Action
	peers    set
	ports    []bool // by index of ports, for a destination without named ports
	named    bool   // it asks for a port by name
}

// chain is the rules of one direction that decide for some groups, in the order
// in which they are asked: all groups that the same policies select, with the
// same named ports.
type chain struct {
	dir    policy.Direction
	group  int // one of them
	refs   []policy.PolicyRef
	rules  []*linkedRule
	family set // groups that can be their peers
}

// linter holds what findings are made from.
type linter struct {
	*World
	options  LintOptions
	refs     []policy.PolicyRef // enforced policies, in the order in which they are asked
	policies map[policy.PolicyRef]policy.Policy
	rules    map[ruleAt]*linkedRule
	chains   []*chain
	byGroup  [2][]*chain // by direction and group; nil if nothing applies
	known    set         // groups of endpoints
	v4       set
	words    int
	found    []Finding
}

func newLinter(w *World, o LintOptions) *linter {
	l := &linter{
		World: w, options: o, policies: map[policy.PolicyRef]policy.Policy{}, rules: map[ruleAt]*linkedRule{},
		words: (len(w.groups) + 63) / 64,
	}
	l.known, l.v4 = l.newSet(), l.newSet()
	for i := range w.groups {
		if len(w.groups[i].Endpoints) > 0 {
			l.known.add(i)
		}
		if w.groups[i].Addr.Is4() {
			l.v4.add(i)
		}
	}
	l.link()
	l.chain()
	return l
}

func (l *linter) newSet() set { return make(set, l.words) }

// link finds the policies, in order, and the peers and ports of their rules.
func (l *linter) link() {
	for i := range l.After.Policies() {
		ref := policy.PolicyRef(i)
		p, ok := l.After.Policy(ref)
		if !ok || !enforced(&p) {
			continue
		}
		l.refs = append(l.refs, ref)
		l.policies[ref] = p
		for _, d := range directions {
			for j := range l.After.Rules(ref, d) {
				l.rules[ruleAt{ref, d, j}] = l.linkRule(ruleAt{ref, d, j})
			}
		}
	}
	slices.SortFunc(l.refs, func(a, b policy.PolicyRef) int { return l.After.Compare(a, b) })
}

func (l *linter) linkRule(at ruleAt) *linkedRule {
	r := &linkedRule{ruleAt: at, peers: l.newSet(), action: l.After.RuleAction(at.ref, at.dir, at.index)}
	r.tier, r.priority = l.After.Rank(at.ref)
	for i := range l.groups {
		a := addrOf(&l.groups[i])
		if l.After.RulePeer(at.ref, at.dir, at.index, l.groups[i].after, &a) {
			r.peers.add(i)
		}
	}
	r.ports = make([]bool, len(l.ports))
	for i := range l.ports {
		r.ports[i] = l.After.RulePort(at.ref, at.dir, at.index, policy.Subject{}, l.ports[i].Protocol, l.ports[i].witness())
	}
	for _, rule := range portNames(l.policies[at.ref].Object, at.dir) {
		r.named = r.named || slices.Contains(rule, at.index)
	}
	return r
}

// chain gathers the groups for which the same rules decide.
func (l *linter) chain() {
	byKey := map[string]*chain{}
	for _, d := range directions {
		l.byGroup[d] = make([]*chain, len(l.groups))
		for i := range l.groups {
			var refs []policy.PolicyRef
			var key []byte
			named := false
			for _, ref := range l.refs {
				if l.After.Applies(ref, d) && l.After.Selects(ref, l.groups[i].after) {
					refs = append(refs, ref)
					key = binary.LittleEndian.AppendUint32(key, uint32(ref))
					for j := range l.After.Rules(ref, d) {
						named = named || l.rules[ruleAt{ref, d, j}].named
					}
				}
			}
			if len(refs) == 0 {
				continue
			}
			key = append(key, byte(d), bit(l.groups[i].Addr.Is4(), 1))
			if named && d == policy.Ingress {
				key = l.After.AppendFingerprint(key, l.groups[i].after)
			}
			c := byKey[string(key)]
			if c == nil {
				c = l.newChain(d, i, refs)
				byKey[string(key)] = c
				l.chains = append(l.chains, c)
			}
			l.byGroup[d][i] = c
		}
	}
}

func (l *linter) newChain(d policy.Direction, group int, refs []policy.PolicyRef) *chain {
	c := &chain{dir: d, group: group, refs: refs, family: l.newSet()}
	for i := range l.groups {
		if l.meet(group, i) {
			c.family.add(i)
		}
	}
	for _, ref := range refs {
		for j := range l.After.Rules(ref, d) {
			c.rules = append(c.rules, l.rules[ruleAt{ref, d, j}])
		}
	}
	return c
}

// matches is the set of peers with which a rule of a chain matches, on ports.
func (l *linter) matches(c *chain, r *linkedRule, ports int) set {
	out := l.newSet()
	p := &l.ports[ports]
	switch {
	case r.ports[ports]:
		copy(out, r.peers)
	case !r.named:
		return out
	case c.dir == policy.Ingress:
		if l.After.RulePort(r.ref, r.dir, r.index, l.groups[c.group].after, p.Protocol, p.witness()) {
			copy(out, r.peers)
		}
	default: // the peer is the destination, whose names count
		for i := range l.groups {
			if r.peers.has(i) && l.After.RulePort(r.ref, r.dir, r.index, l.groups[i].after, p.Protocol, p.witness()) {
				out.add(i)
			}
		}
	}
	out.put(out, c.family, and)
	return out
}

// matched is [linter.matches] of all rules of a chain, on ports.
func (l *linter) matched(c *chain, ports int) []set {
	out := make([]set, len(c.rules))
	for i, r := range c.rules {
		out[i] = l.matches(c, r, ports)
	}
	return out
}

// judgement is what a chain decides about all peers at once.
type judgement struct {
	allowed set
	denied  set // by the Admin tier
	decided set // by the Admin tier
}

// judge runs a chain's tiers over all peers at once, as if the rule skip were
// not there, or, if its index is -1, the whole policy. It says the same as
// package policy says of each peer: a property test holds it to that.
func (l *linter) judge(c *chain, matched []set, skip ruleAt) judgement {
	j := judgement{allowed: l.newSet(), denied: l.newSet(), decided: l.newSet()}
	skipped := func(r *linkedRule) bool {
		return r.ref == skip.ref && (skip.index < 0 || r.index == skip.index)
	}
	open, passed, m := l.newSet(), l.newSet(), l.newSet()
	copy(open, c.family)
	for i, r := range c.rules { // Admin
		if r.tier != policy.AdminTier || skipped(r) {
			continue
		}
		m.put(open, matched[i], and)
		open.put(open, m, except)
		switch r.action {
		case policy.Accept:
			j.allowed.put(j.allowed, m, or)
		case policy.Deny:
			j.denied.put(j.denied, m, or)
		case policy.Pass:
			passed.put(passed, m, or)
		}
	}
	open.put(open, passed, or)
	j.decided.put(c.family, open, except)
	isolated := slices.ContainsFunc(c.refs, func(ref policy.PolicyRef) bool {
		tier, _ := l.After.Rank(ref)
		return tier == policy.NetworkTier && (ref != skip.ref || skip.index >= 0)
	})
	if isolated {
		for i, r := range c.rules {
			if r.tier == policy.NetworkTier && !skipped(r) {
				m.put(open, matched[i], and)
				j.allowed.put(j.allowed, m, or)
			}
		}
		return j
	}
	for i, r := range c.rules { // Baseline
		if r.tier != policy.BaselineTier || skipped(r) {
			continue
		}
		m.put(open, matched[i], and)
		open.put(open, m, except)
		if r.action != policy.Deny {
			j.allowed.put(j.allowed, m, or)
		}
	}
	j.allowed.put(j.allowed, open, or)
	return j
}
