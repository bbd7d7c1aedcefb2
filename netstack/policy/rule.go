package policy

import (
	"patronus/netstack/packet"
)

// Direction is the side of a flow that a policy isolates: egress at its
// source, ingress at its destination.
type Direction uint8

// The directions.
const (
	Egress Direction = iota
	Ingress
)

func (d Direction) String() string {
	if d == Ingress {
		return "ingress"
	}
	return "egress"
}

// Action is what a rule does with what it matches.
type Action uint8

// The actions. NetworkPolicy rules only accept.
const (
	Accept Action = iota
	Deny
	Pass
)

func (a Action) String() string { return [...]string{"Accept", "Deny", "Pass"}[a] }

// nobody is the identity of an address in no endpoint.
const nobody = ^uint32(0)

// none is the audience of a rule whose peers are addresses only.
const none = ^uint32(0)

// rule is a compiled rule: it matches if any port and any peer does.
type rule struct {
	policy   PolicyRef
	index    int32
	action   Action
	everyone bool   // any peer
	peers    uint32 // audience, or none
	cidrs    *ranges
	ports    []port // empty: any protocol and port
}

// port is a range of ports of a protocol, or a name.
type port struct {
	proto       uint8 // 0: any (a ClusterNetworkPolicy's named port)
	first, last uint16
	name        uint32 // 0: by number
}

// namedPort is a port of an endpoint that policies may name.
type namedPort struct {
	name  uint32
	port  uint16
	proto uint8
}

// query is one side's question.
type query struct {
	peer  uint32       // identity, or nobody
	addr  *packet.Addr // the peer's address
	ports []namedPort  // of the destination
	proto uint8
	port  uint16 // destination
}

func (r *rule) matches(s *Ruleset, q *query) bool {
	return r.matchesPort(q) && r.matchesPeer(s, q)
}

func (r *rule) matchesPeer(s *Ruleset, q *query) bool {
	if r.everyone || r.peers != none && s.audiences[r.peers].has(q.peer) {
		return true
	}
	return r.cidrs != nil && r.cidrs.contains(q.addr)
}

func (r *rule) matchesPort(q *query) bool {
	if len(r.ports) == 0 {
		return true
	}
	for i := range r.ports {
		p := &r.ports[i]
		if p.name == 0 {
			if p.proto == q.proto && p.first <= q.port && q.port <= p.last {
				return true
			}
			continue
		}
		for _, n := range q.ports {
			if n.name == p.name && n.port == q.port && n.proto == q.proto && (p.proto == 0 || p.proto == n.proto) {
				return true
			}
		}
	}
	return false
}

// program is what decides one direction for one identity. It never changes.
type program struct {
	rules     []rule // of the Admin tier, of NetworkPolicies, of the Baseline tier
	admin     int32  // end of the Admin tier's rules
	network   int32  // end of the NetworkPolicies' rules
	isolating PolicyRef
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
func (p *program) decide(s *Ruleset, q *query) answer {
	out := answer{true, NotIsolated, NoPolicy, -1}
	for i := range p.rules[:p.admin] {
		if r := &p.rules[i]; r.matches(s, q) {
			if r.action != Pass {
				return r.answer()
			}
			out = r.answer()
			break
		}
	}
	if p.isolating != NoPolicy {
		for i := p.admin; i < p.network; i++ {
			if r := &p.rules[i]; r.matches(s, q) {
				return r.answer()
			}
		}
		return answer{false, IsolatedNoMatch, p.isolating, -1}
	}
	for i := int(p.network); i < len(p.rules); i++ {
		if r := &p.rules[i]; r.matches(s, q) {
			return r.answer()
		}
	}
	return out
}

func (r *rule) answer() answer {
	switch r.action {
	case Deny:
		return answer{false, DeniedByRule, r.policy, r.index}
	case Pass:
		return answer{true, PassedToDefault, r.policy, r.index}
	}
	return answer{true, AllowedByRule, r.policy, r.index}
}
