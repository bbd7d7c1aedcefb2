package policy

import (
	"net/netip"

	"github.com/gaissmai/bart"

	"patronus/configs"
	"patronus/netstack/packet"
)

// Reason says why a side, or a flow, was allowed or denied.
type Reason uint8

// The reasons. Their text is a contract of `patronus policy verdicts`.
const (
	NotIsolated     Reason = iota // no policy selects the side
	AllowedByRule                 // a rule accepts it
	IsolatedNoMatch               // a NetworkPolicy isolates the side, no rule accepts
	DeniedByRule                  // a rule of a ClusterNetworkPolicy denies it
	PassedToDefault               // a Pass rule matched and nothing after it decided
)

func (r Reason) String() string {
	return [...]string{"not-isolated", "allowed-by-rule", "isolated-no-match", "denied-by-rule", "passed-to-default"}[r]
}

// PolicyRef is a policy's place in [Ruleset.Policies]. It stays the same from
// one ruleset of a compiler to the next for as long as the policy exists.
type PolicyRef int32

// NoPolicy means that no policy decided.
const NoPolicy PolicyRef = -1

// Decision is the answer for a flow. It has no pointers.
//
// Policy, Rule, Reason and Direction are those of one side: of a denied flow
// the side that denies it, egress first; of an allowed flow the side that a
// rule allows, egress first, before one that a Pass rule let through, before
// one that nothing isolates.
type Decision struct {
	Allowed, Egress, Ingress bool
	Reason                   Reason
	Direction                Direction
	Reject                   bool // a denied packet is to be answered (the policy's metadata)
	Policy                   PolicyRef
	Rule                     int32 // index in the policy's list of Direction, -1 if none
}

// location is what the table of addresses knows.
type location struct{ identity, endpoint uint32 }

// pageSize is how many entries are copied when one of them changes.
const pageSize = 128

// entry is an identity's compiled state. The programs of staged evaluation are
// the same ones if no staged policy selects the identity.
type entry struct {
	row      bitset // the audiences that the identity belongs to
	ports    []namedPort
	programs [2]*program // by Direction
	// Up to here a packet needs it: one cache line of two.
	staged [2]*program
	space  map[string]string // the namespace's labels, for explanations
	_      [40]byte
}

// Ruleset is a compiled set of policies over a set of endpoints. It is
// immutable and safe for concurrent use.
type Ruleset struct {
	version   uint32
	hosts     hosts
	prefixes  *bart.Table[location] // of endpoints that are more than one address
	pages     [][]entry             // by identity
	endpoints []*endpoint           // by location.endpoint; nil entries are free
	policies  []*compiled           // by PolicyRef; nil entries are free
	staged    bool                  // there are staged policies
}

// Version numbers rulesets of one compiler, rising from 1.
func (r *Ruleset) Version() uint32 { return r.version }

// Policies is the number of places for policies: every PolicyRef is below it.
func (r *Ruleset) Policies() int { return len(r.policies) }

// Policy is the policy at a place; ok is false if none is there.
func (r *Ruleset) Policy(ref PolicyRef) (p Policy, ok bool) {
	if ref < 0 || int(ref) >= len(r.policies) || r.policies[ref] == nil {
		return Policy{}, false
	}
	return r.policies[ref].Policy, true
}

// PolicyID is the ID of the policy at a place, "" for [NoPolicy].
func (r *Ruleset) PolicyID(ref PolicyRef) string {
	if ref < 0 || int(ref) >= len(r.policies) || r.policies[ref] == nil {
		return ""
	}
	return r.policies[ref].id
}

// Evaluate judges a new flow at both of its ends.
func (r *Ruleset) Evaluate(k *packet.Key) Decision { return r.EvaluateSide(k, true, true) }

// EvaluateSide judges a new flow at the ends that are asked for: a source site
// enforces egress, a destination site ingress. An end that is not asked for
// counts as allowed. It allocates nothing.
func (r *Ruleset) EvaluateSide(k *packet.Key, egress, ingress bool) Decision {
	return r.evaluate(k, egress, ingress, false)
}

// EvaluateStaged judges a flow as if the staged policies were enforced too.
func (r *Ruleset) EvaluateStaged(k *packet.Key, egress, ingress bool) Decision {
	return r.evaluate(k, egress, ingress, true)
}

// Staged reports whether there are staged policies, so that
// [Ruleset.EvaluateStaged] can differ.
func (r *Ruleset) Staged() bool { return r.staged }

func (r *Ruleset) locate(a *packet.Addr) location {
	if l, ok := r.hosts.lookup(a); ok {
		return l
	}
	if r.prefixes.Size() > 0 {
		if l, ok := r.prefixes.Lookup(a.Netip()); ok {
			return l
		}
	}
	return location{nobody, nobody}
}

func (r *Ruleset) evaluate(k *packet.Key, egress, ingress, staged bool) Decision {
	src, dst := r.locate(&k.Src).identity, r.locate(&k.Dst).identity
	out := answer{true, NotIsolated, NoPolicy, -1}
	in := out
	from, to := r.entry(src), r.entry(dst)
	q := query{proto: k.Proto, port: k.DstPort, ports: to.ports}
	if egress {
		q.peer, q.addr = to.row, &k.Dst
		out = from.program(Egress, staged).decide(&q)
	}
	if ingress {
		q.peer, q.addr = from.row, &k.Src
		in = to.program(Ingress, staged).decide(&q)
	}
	return r.join(out, in)
}

// outside is the entry of an address in no endpoint: nothing isolates it, and
// it is in no audience.
var outside = &entry{programs: [2]*program{open, open}, staged: [2]*program{open, open}}

func (r *Ruleset) entry(id uint32) *entry {
	if id == nobody {
		return outside
	}
	return &r.pages[id/pageSize][id%pageSize]
}

func (e *entry) program(d Direction, staged bool) *program {
	if staged {
		return e.staged[d]
	}
	return e.programs[d]
}

// join makes a flow's decision of its sides' answers.
func (r *Ruleset) join(out, in answer) Decision {
	d := Decision{Allowed: out.allowed && in.allowed, Egress: out.allowed, Ingress: in.allowed}
	from := out
	switch {
	case !out.allowed:
	case !in.allowed, out.reason != AllowedByRule && (in.reason == AllowedByRule || out.reason == NotIsolated && in.reason != NotIsolated):
		from, d.Direction = in, Ingress
	}
	d.Reason, d.Policy, d.Rule = from.reason, from.policy, from.rule
	if !d.Allowed && from.policy != NoPolicy {
		d.Reject = r.policies[from.policy].Reject
	}
	return d
}

// Endpoint is the endpoint that an address belongs to.
func (r *Ruleset) Endpoint(a netip.Addr) (e configs.HostEndpoint, ok bool) {
	key := packet.AddrFrom(a)
	l := r.locate(&key)
	if l.endpoint == nobody {
		return configs.HostEndpoint{}, false
	}
	return r.endpoints[l.endpoint].HostEndpoint, true
}

// Endpoints yields all endpoints; borrowed: their maps and slices must not be
// changed.
func (r *Ruleset) Endpoints(yield func(configs.HostEndpoint) bool) {
	for _, e := range r.endpoints {
		if e != nil && !yield(e.HostEndpoint) {
			return
		}
	}
}
