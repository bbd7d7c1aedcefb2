package policy

import (
	"net/netip"

	"patronus/configs"
	"patronus/netstack/packet"
)

// Party is one end of an explained flow.
type Party struct {
	Address         netip.Addr        `json:"address"`
	Known           bool              `json:"known"` // it belongs to an endpoint
	Namespace       string            `json:"namespace,omitempty"`
	Name            string            `json:"name,omitempty"`
	Site            string            `json:"site,omitempty"`
	Origin          string            `json:"origin,omitempty"`
	Labels          map[string]string `json:"labels,omitempty"`
	NamespaceLabels map[string]string `json:"namespace_labels,omitempty"`
}

// Explanation says how a decision came about: all that was looked at.
type Explanation struct {
	Version  uint32   `json:"rules_version"`
	From     Party    `json:"from"`
	To       Party    `json:"to"`
	Protocol uint8    `json:"protocol"`
	Port     uint16   `json:"port"`
	Decision Decision `json:"-"`
	Allowed  bool     `json:"allowed"`
	Reason   string   `json:"reason"`
	Policy   string   `json:"policy"`
	Rule     int32    `json:"rule"`
	Reject   bool     `json:"reject"`
	Egress   Side     `json:"egress"`
	Ingress  Side     `json:"ingress"`
	// Staged is what would be decided if the staged policies were enforced;
	// nil if that is the same.
	Staged *Decision `json:"-"`
}

// Side is the explanation of one direction.
type Side struct {
	Allowed    bool         `json:"allowed"`
	Reason     string       `json:"reason"`
	Policy     string       `json:"policy"`
	Rule       int32        `json:"rule"`
	Considered []Considered `json:"considered"`
}

// Considered is what one policy has to say about one direction of a flow.
type Considered struct {
	Policy   string             `json:"policy"`
	Tier     string             `json:"tier"`
	Priority int32              `json:"priority,omitempty"`
	Mode     configs.PolicyMode `json:"mode"`
	Selects  bool               `json:"selects"` // it applies to the endpoint in this direction
	Decides  bool               `json:"decides"`
	Why      string             `json:"why"`
	Rules    []ConsideredRule   `json:"rules,omitempty"`
}

// ConsideredRule is whether a rule matches a flow.
type ConsideredRule struct {
	Index  int32  `json:"index"`
	Action string `json:"action"`
	Peer   bool   `json:"peer"`
	Port   bool   `json:"port"`
}

// Explain judges a flow like [Ruleset.Evaluate] and tells of every policy why
// it did or did not decide. It asks the rules that enforcement asks.
func (r *Ruleset) Explain(k *packet.Key) Explanation {
	d := r.Evaluate(k)
	src, dst := r.locate(&k.Src), r.locate(&k.Dst)
	x := Explanation{
		Version: r.version, From: r.party(&k.Src, src), To: r.party(&k.Dst, dst),
		Protocol: k.Proto, Port: k.DstPort, Decision: d, Allowed: d.Allowed, Reason: d.Reason.String(),
		Policy: r.PolicyID(d.Policy), Rule: d.Rule, Reject: d.Reject,
	}
	from, to := r.entry(src.identity), r.entry(dst.identity)
	q := query{peer: to.row, addr: &k.Dst, proto: k.Proto, port: k.DstPort, ports: to.ports}
	x.Egress = r.explainSide(Egress, src.identity, &q)
	q.peer, q.addr = from.row, &k.Src
	x.Ingress = r.explainSide(Ingress, dst.identity, &q)
	if r.staged {
		if s := r.EvaluateStaged(k, true, true); s != d {
			x.Staged = &s
		}
	}
	return x
}

func (r *Ruleset) party(a *packet.Addr, l location) Party {
	p := Party{Address: a.Netip()}
	if l.endpoint == nobody {
		return p
	}
	e := r.endpoints[l.endpoint]
	p.Known, p.Namespace, p.Name, p.Site, p.Origin = true, e.Namespace, e.Name, e.Site, e.Origin
	p.Labels, p.NamespaceLabels = e.Labels, r.entry(l.identity).space
	return p
}

func (r *Ruleset) explainSide(d Direction, id uint32, q *query) Side {
	a := r.entry(id).program(d, false).decide(q)
	s := Side{Allowed: a.allowed, Reason: a.reason.String(), Policy: r.PolicyID(a.policy), Rule: a.rule}
	for ref, p := range r.policies {
		if p != nil {
			s.Considered = append(s.Considered, r.consider(p, d, id, q, a.policy == PolicyRef(ref), a))
		}
	}
	return s
}

func (r *Ruleset) consider(p *compiled, d Direction, id uint32, q *query, decides bool, a answer) Considered {
	c := Considered{Policy: p.id, Tier: p.tier.String(), Priority: p.priority, Mode: p.Mode, Decides: decides}
	switch {
	case id == nobody:
		c.Why = "the address belongs to no endpoint"
		return c
	case !r.entry(id).row.has(p.subject.id):
		c.Why = "does not select the endpoint"
		return c
	case !p.applies[d]:
		c.Why = "does not apply to " + d.String()
		return c
	}
	c.Selects = true
	matched := false
	for i := range p.rules[d] {
		x := &p.rules[d][i]
		y := ConsideredRule{Index: x.index, Action: x.action.String(), Peer: x.matchesPeer(q), Port: x.matchesPort(q)}
		matched = matched || y.Peer && y.Port
		c.Rules = append(c.Rules, y)
	}
	switch {
	case p.Mode == configs.PolicyDisabled:
		c.Why = "disabled"
	case p.Mode == configs.PolicyStaged:
		c.Why = "staged, not enforced"
	case decides && a.reason == IsolatedNoMatch:
		c.Why = "isolates the endpoint, and no rule of any policy matches"
	case decides:
		c.Why = "its rule decides"
	case matched:
		c.Why = "a rule matches, but another policy decided before"
	case p.tier == NetworkTier:
		c.Why = "isolates the endpoint; no rule matches"
	default:
		c.Why = "no rule matches"
	}
	return c
}
