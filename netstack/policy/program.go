package policy

// term is a rule with one of its ports: what the packet path asks. Terms of
// one rule are neighbours.
type term struct {
	first  uint16 // of the ports
	span   uint16 // last - first
	proto  uint8  // 0: any
	action Action
	kind   termKind
	peers  uint32 // audience, or none
	name   uint32 // of a port, 0: by number
	policy PolicyRef
	index  int32
	order  int32 // place among the program's terms
	cidrs  *ranges
}

type termKind uint8

const (
	everyone termKind = 1 << iota // any peer
	byCIDR                        // cidrs is set
	byName                        // name is set
)

// terms lays a rule out.
func (r *rule) terms(out []term) []term {
	t := term{span: 65535, action: r.action, peers: r.peers, policy: r.policy, index: r.index, cidrs: r.cidrs}
	if r.everyone {
		t.kind |= everyone
	}
	if r.cidrs != nil {
		t.kind |= byCIDR
	}
	if len(r.ports) == 0 {
		return append(out, t)
	}
	for _, p := range r.ports {
		u := t
		u.proto = p.proto
		if p.name != 0 {
			u.kind |= byName
			u.name = p.name
		} else {
			u.first, u.span = p.first, p.last-p.first
		}
		out = append(out, u)
	}
	return out
}

func (t *term) matches(q *query) bool {
	if t.proto != q.proto && t.proto != 0 || q.port-t.first > t.span {
		return false
	}
	if t.kind&byName != 0 && !q.names(t.name, t.proto) {
		return false
	}
	if t.kind&everyone != 0 || q.peer.has(t.peers) {
		return true
	}
	return t.kind&byCIDR != 0 && t.cidrs.contains(q.addr)
}

// program is what decides one direction for one identity. It never changes.
//
// A short one is walked: the first term that matches decides. A long one has
// its terms indexed by destination port and by peer instead, see [index].
type program struct {
	isolating PolicyRef
	admin     int32  // end of the Admin tier's terms
	network   int32  // end of the NetworkPolicies' terms
	terms     []term // Admin tier, NetworkPolicies, Baseline tier
	index     *index // of a long program
}

// open is the program of an identity that no policy selects.
var open = &program{isolating: NoPolicy}

// answer is one side's verdict.
type answer struct {
	allowed bool
	reason  Reason
	policy  PolicyRef
	rule    int32
}

// decide runs the tiers in order: Admin, NetworkPolicy, Baseline, default.
func (p *program) decide(q *query) answer {
	out := answer{true, NotIsolated, NoPolicy, -1}
	if t := p.first(AdminTier, 0, p.admin, q); t != nil {
		out = t.answer()
		if t.action != Pass {
			return out
		}
	}
	if p.isolating != NoPolicy {
		if t := p.first(NetworkTier, p.admin, p.network, q); t != nil {
			return t.answer()
		}
		return answer{false, IsolatedNoMatch, p.isolating, -1}
	}
	if t := p.first(BaselineTier, p.network, int32(len(p.terms)), q); t != nil {
		return t.answer()
	}
	return out
}

// first is the first term of a tier that matches, nil if none does.
func (p *program) first(tier Tier, from, to int32, q *query) *term {
	if from == to {
		return nil
	}
	if p.index != nil {
		return p.index.first(tier, p.terms, q)
	}
	terms := p.terms[from:to]
	for i := range terms {
		if terms[i].matches(q) {
			return &terms[i]
		}
	}
	return nil
}

func (t *term) answer() answer {
	switch t.action {
	case Deny:
		return answer{false, DeniedByRule, t.policy, t.index}
	case Pass:
		return answer{true, PassedToDefault, t.policy, t.index}
	}
	return answer{true, AllowedByRule, t.policy, t.index}
}

// program lays the rules of policies, in order, out for one direction.
func (c *Compiler) program(list []int32, d Direction) *program {
	n, any := 0, false
	for _, ref := range list {
		n += len(c.policies[ref].terms[d])
		any = any || c.policies[ref].applies[d]
	}
	if !any {
		return open
	}
	p := &program{isolating: NoPolicy, terms: make([]term, 0, n)}
	for _, ref := range list {
		x := c.policies[ref]
		if !x.applies[d] {
			continue
		}
		if x.tier == NetworkTier && p.isolating == NoPolicy {
			p.isolating = PolicyRef(ref)
		}
		p.terms = append(p.terms, x.terms[d]...)
		if x.tier <= AdminTier {
			p.admin = int32(len(p.terms))
		}
		if x.tier <= NetworkTier {
			p.network = int32(len(p.terms))
		}
	}
	for i := range p.terms {
		p.terms[i].order = int32(i)
	}
	p.index = newIndex(p, c.indexAbove)
	return p
}
