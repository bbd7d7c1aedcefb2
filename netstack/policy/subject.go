package policy

import (
	"net/netip"
	"slices"

	"patronus/configs"
	"patronus/netstack/packet"
)

// Subject is what policies know of one end of a flow, compiled for a ruleset:
// an endpoint's namespace, labels and named ports, without its addresses. The
// zero Subject is an address in no endpoint: nothing selects it. Subjects are
// immutable, and comparable within one ruleset.
type Subject struct{ entry *entry }

// Known reports whether s is an endpoint's.
func (s Subject) Known() bool { return s.entry != nil }

func (s Subject) of() *entry {
	if s.entry == nil {
		return outside
	}
	return s.entry
}

// SubjectOf is the subject of the endpoint that an address belongs to.
func (r *Ruleset) SubjectOf(a netip.Addr) Subject {
	key := packet.AddrFrom(a)
	l := r.locate(&key)
	if l.identity == nobody {
		return Subject{}
	}
	return Subject{r.entry(l.identity)}
}

// End is the endpoint that an address belongs to, with the labels of its
// namespace, nil if there is none; borrowed: they must not be changed.
func (r *Ruleset) End(a *packet.Addr) (e *configs.HostEndpoint, namespaceLabels map[string]string) {
	l := r.locate(a)
	if l.endpoint == nobody {
		return nil, nil
	}
	return &r.endpoints[l.endpoint].HostEndpoint, r.entry(l.identity).space
}

// Subjects yields every endpoint with its subject, in no particular order;
// borrowed: maps and slices of endpoints must not be changed.
func (r *Ruleset) Subjects(yield func(Subject, configs.HostEndpoint) bool) {
	for _, e := range r.endpoints {
		if e != nil && !yield(Subject{r.entry(e.identity.id)}, e.HostEndpoint) {
			return
		}
	}
}

// EvaluateSubjects judges a new flow between subjects instead of the endpoints
// that have its addresses: k's addresses are asked for address blocks only.
// It allocates nothing. Both subjects must be of r.
func (r *Ruleset) EvaluateSubjects(from, to Subject, k *packet.Key, egress, ingress bool) Decision {
	out := answer{true, NotIsolated, NoPolicy, -1}
	in := out
	src, dst := from.of(), to.of()
	q := query{proto: k.Proto, port: k.DstPort, ports: dst.ports}
	if egress {
		q.peer, q.addr = dst.row, &k.Dst
		out = src.programs[Egress].decide(&q)
	}
	if ingress {
		q.peer, q.addr = src.row, &k.Src
		in = dst.programs[Ingress].decide(&q)
	}
	return r.join(out, in)
}

// AppendFingerprint appends bytes that are equal for subjects between which no
// policy of the ruleset can tell, address blocks aside.
func (r *Ruleset) AppendFingerprint(b []byte, s Subject) []byte {
	e := s.of()
	row := e.row
	for len(row) > 0 && row[len(row)-1] == 0 {
		row = row[:len(row)-1]
	}
	b = append(b, byte(len(row)), byte(len(row)>>8))
	for _, w := range row {
		b = append(b, byte(w), byte(w>>8), byte(w>>16), byte(w>>24), byte(w>>32), byte(w>>40), byte(w>>48), byte(w>>56))
	}
	for _, p := range e.ports {
		b = append(b, byte(p.name), byte(p.name>>8), byte(p.name>>16), byte(p.port), byte(p.port>>8), p.proto)
	}
	return append(b, 0xff)
}

// Selects reports whether a policy's subject has s.
func (r *Ruleset) Selects(ref PolicyRef, s Subject) bool {
	return s.of().row.has(r.policies[ref].subject.id)
}

// Applies reports whether a policy isolates, or has rules for, a direction.
func (r *Ruleset) Applies(ref PolicyRef, d Direction) bool { return r.policies[ref].applies[d] }

// Rank is a policy's tier and its priority there, by which policies are asked.
func (r *Ruleset) Rank(ref PolicyRef) (Tier, int32) {
	return r.policies[ref].tier, r.policies[ref].priority
}

// Rules is the number of rules that a policy has for a direction it applies to.
func (r *Ruleset) Rules(ref PolicyRef, d Direction) int { return len(r.policies[ref].rules[d]) }

// RuleAction is what a rule does.
func (r *Ruleset) RuleAction(ref PolicyRef, d Direction, i int) Action {
	return r.policies[ref].rules[d][i].action
}

// RulePeer reports whether a subject at an address is a peer of a rule.
func (r *Ruleset) RulePeer(ref PolicyRef, d Direction, i int, peer Subject, a *packet.Addr) bool {
	return r.policies[ref].rules[d][i].matchesPeer(&query{peer: peer.of().row, addr: a})
}

// RulePort reports whether a rule has a protocol and port of a destination.
func (r *Ruleset) RulePort(ref PolicyRef, d Direction, i int, to Subject, proto uint8, port uint16) bool {
	return r.policies[ref].rules[d][i].matchesPort(&query{ports: to.of().ports, proto: proto, port: port})
}

// Profile is all that policies can know of an endpoint, as it is now or as it
// was when a flow was recorded.
type Profile struct {
	Namespace       string
	NamespaceLabels map[string]string
	Labels          map[string]string
	Ports           []configs.NamedPort
}

// Profiler compiles profiles that belong to no endpoint of a compiler, for its
// last ruleset. It shares the compiler's owner and is invalid from the next
// [Compiler.Apply] on.
type Profiler struct {
	compiler *Compiler
	programs map[string][2]*program
	order    []int32                // policies as they are asked
	bySpace  map[string][]*audience // those that can have members of one namespace only
	wide     []*audience            // the others
	subjects map[string]Subject     // what was compiled
}

// Profiler returns a profiler for the last ruleset.
func (c *Compiler) Profiler() *Profiler {
	p := &Profiler{compiler: c, programs: map[string][2]*program{}, bySpace: map[string][]*audience{}, subjects: map[string]Subject{}}
	for ref, x := range c.policies {
		if x != nil && x.Mode != configs.PolicyDisabled {
			p.order = append(p.order, int32(ref))
		}
	}
	slices.SortFunc(p.order, func(a, b int32) int { return c.policies[a].before(c.policies[b]) })
	for _, a := range c.byID {
		switch {
		case a == nil:
		case len(a.scopes) == 1 && a.scopes[0].namespace != "":
			p.bySpace[a.scopes[0].namespace] = append(p.bySpace[a.scopes[0].namespace], a)
		default:
			p.wide = append(p.wide, a)
		}
	}
	return p
}

// Subject compiles a profile. Equal profiles have one subject.
func (p *Profiler) Subject(of Profile) Subject {
	c := p.compiler
	space := &namespace{name: of.Namespace, labels: make(map[string]string, len(of.NamespaceLabels)+1)}
	for k, v := range of.NamespaceLabels {
		space.labels[k] = v
	}
	space.labels[nameLabel] = of.Namespace
	id := &identity{space: space, labels: of.Labels, ports: c.ports(&configs.HostEndpoint{Ports: of.Ports})}
	key := identityKey(of.Namespace, space.labels, nil) + identityKey("", id.labels, id.ports)
	if s, ok := p.subjects[key]; ok {
		return s
	}
	e := &entry{space: space.labels, ports: id.ports, row: make(bitset, len(c.byID)/64+1)}
	for _, list := range [2][]*audience{p.bySpace[of.Namespace], p.wide} {
		for _, a := range list {
			if a.matches(id) {
				e.row.set(a.id, true)
			}
		}
	}
	for _, ref := range p.order {
		if e.row.has(c.policies[ref].subject.id) {
			id.policies = append(id.policies, ref)
		}
	}
	e.programs, e.staged = c.link(id.policies, p.programs)
	p.subjects[key] = Subject{e}
	return Subject{e}
}

// Changed reports whether a direction of a subject may be decided otherwise
// than one of the previous ruleset of the same compiler, over the same
// endpoints. It may be true for one that is decided the same.
func (s Subject) Changed(d Direction, before Subject) bool {
	return s.of().programs[d] != before.of().programs[d]
}

// Compare orders policies as they are asked.
func (r *Ruleset) Compare(a, b PolicyRef) int { return r.policies[a].before(r.policies[b]) }
